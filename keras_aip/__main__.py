import sys

from keras_aip.cli import main

sys.exit(main())
