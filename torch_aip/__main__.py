import sys

from torch_aip.cli import main

sys.exit(main())
