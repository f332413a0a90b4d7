"""What all tests share: how Hypothesis works.

No example has a deadline, since machines are shared. Where `CI` is set the examples are the same in every run, so that
a change is judged by what it changed; elsewhere each run looks for new ones.
"""

import os

from hypothesis import settings

settings.register_profile("everywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "everywhere")
