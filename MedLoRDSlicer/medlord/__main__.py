"""`python -m medlord`: the command line, where the `medlord` script is not on the path."""

from .cli import main

raise SystemExit(main())
