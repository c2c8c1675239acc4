"""For `spark-submit daemon/cluster/submit.py -c config.toml`, where YARN or Kubernetes say where Spark runs."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv[1:1] = ["stream", "--master", ""]
    runpy.run_module("daemon", run_name="__main__")
