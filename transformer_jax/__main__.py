"""`python -m transformer_jax VERB`."""

import sys

from transformer_jax.cli import main

if __name__ == "__main__":
    sys.exit(main.main())
