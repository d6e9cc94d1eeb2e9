"""Real teachers of three frameworks, crossed and measured in both: the table of the README.

    AIP_DATA=data/ python benchmarks/real_teachers.py [resnet20 resnet56 mobilenetv2 dscnn] --out runs/teachers

AIP_DATA holds what `tests/crossing/test_real_teachers.py` describes. Every teacher is exported as on the command line
and then asked, through model.onnx, from Keras and from PyTorch about all of its real test data.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from common import ROOT, data_folder, machine, write_results

sys.path.insert(0, str(ROOT))
from tests.crossing import real_teachers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="*", default=list(real_teachers.TEACHERS))
    parser.add_argument("--out", type=Path, default=Path("runs/teachers"), help="the folders; those there are kept")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "results" / "real_teachers.json")
    arguments = parser.parse_args()
    rows = {}
    for name in arguments.teachers:
        teacher = real_teachers.TEACHERS[name]
        began = time.monotonic()
        folder = arguments.out / name
        if not folder.is_dir():
            teacher.export(data_folder(), folder)
        rows[name] = real_teachers.compare(folder, *teacher.test_data(data_folder()))
        rows[name]["seconds"] = round(time.monotonic() - began, 1)
        row = rows[name]
        print(
            f"{name:12s} n = {row['n']:,}  Keras {row['keras_top1']:.2%}  PyTorch {row['torch_top1']:.2%}  agreement "
            f"{row['agreement']:.2%}  largest difference {row['difference']:.1e} of {row['largest']:.1f}"
        )
    write_results(arguments.result, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
