"""What is going on? One page, served without a build step: every number on it is a query on the ledger.

| module | purpose |
|---|---|
| `reading` | a read-only connection, and one consistent view of the ledger for all queries of a look |
| `totals`, `timeline`, `speeds` | the queries: sums, traffic by time and model, percentiles |
| `decisions` | the list of decisions, and one of them opened to its reasons |
| `curve` | the calibrated frontier of quality against cost, with the dial on it |
| `overview` | all of it together, as one JSON document |
| `endpoints` | the paths: the page, its files, its data |
"""
