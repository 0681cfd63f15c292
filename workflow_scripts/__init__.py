"""The scripts of the workflow.

Before anything else is imported, what a user's environment would change of the numbers is removed.
"""

from workflow_scripts.common import user_environment as user_environment
