"""What may a rule ask about a request? One class per kind of signal (S23).

A signal reads facts of one request and says whether it holds, with the value behind it. It is read only
where a rule's condition comes to it, at most once per request, within a budget of time, and what holds where
it fails is stated.

| module | purpose |
|---|---|
| `base` | the contract: facts in, a finding out |
| `words` | keyword, regex, language, code, complexity |
| `shape` | length, needs, header, tenant |
| `care` | personal data, jailbreak, feedback |
| `similarity`, `background` | nearness to examples, and the unrelated texts that its threshold is set by |
| `domain` | the task that a learned classifier reads |
| `patterns` | what a regular expression may cost at worst |
| `board` | reads signals: budgets, defaults, each once per request |
"""
