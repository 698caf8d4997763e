"""Work in proportion to others' input, in processes that can be killed: searches, and the conversion of pages.

| module | what it is                                                                                        |
|--------|---------------------------------------------------------------------------------------------------|
| pool   | starts a bounded number of workers, and ends them with their call, their time and the gateway       |
| main   | the program that each worker is: takes its limits, then does one job                              |
| search | a job: names (glob) and lines (grep) in a folder                                                  |
| unseen | what people do not see of a page                                                                  |
| page   | a job: a body as it came from the web, unpacked, decoded, and converted to Markdown               |

The jobs import nothing of the gateway, so that a worker starts quickly and knows no secret.
"""

from gateway_svc.tools.workers.pool import Workers

__all__ = ["Workers"]
