"""Parts for turnout that live in a package of their own."""
