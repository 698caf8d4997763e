"""Rules on arguments: a file that decides, call by call, what the policies of tools decide by name alone.

Conditions are in CEL (https://cel.dev). docs/rules.md tells people about the file; docs/decisions/rules.md, why this
library and these bounds. Only `service_kit.rules.conditions` and what builds on it loads the library.
"""
