"""What programs of tasks see of the agent's environment: what is listed, and nothing else."""

import fnmatch
import os
from collections.abc import Sequence

from taskyard.agent.task_users import TaskUser

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""All that a command sees."""
TERRAFORM_INHERITED = (
    *("TF_*", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""What Terraform sees besides. Credentials of providers are not in it: the settings of an agent name them."""
NEVER = "TASKYARD_*"


def inherited(user: TaskUser | None, more: Sequence[str] = ()) -> dict[str, str]:
    """The part of our environment that a program of this user sees: what is always, and what `more` names (`AWS_*`)."""
    found = {
        name: value
        for name, value in os.environ.items()
        if (name in INHERITED or any(fnmatch.fnmatchcase(name, one) for one in more))
        and not fnmatch.fnmatchcase(name, NEVER)
    }
    if user is not None:
        found |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    return found
