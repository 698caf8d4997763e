"""The workspace as tools see it: `Files`, a handle whose operations all stay inside.

| module  | what it knows                                                  |
|---------|----------------------------------------------------------------|
| handle  | what a tool may do with a path: open, list, stat, replace       |
| confine | how a path is walked without leaving the workspace             |
| replace | how a file is replaced in one step                             |
"""

from gateway_svc.tools.files.handle import Files, OpenedPath

__all__ = ["Files", "OpenedPath"]
