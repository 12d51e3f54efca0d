"""A supervisor of one forked `freshet`, in a process of its own: python forking.py ARGUMENT ..."""

import sys
import time

from stream.local.supervisor import Child, Supervisor


def main() -> None:
    supervisor = Supervisor([Child("worker", sys.argv[1:], forked=True)], lambda name, line: print(line, flush=True))
    supervisor.start()
    process = supervisor.children["worker"].process
    assert process is not None
    print("pid", process.pid, flush=True)
    while True:
        supervisor.watch()
        time.sleep(0.05)


if __name__ == "__main__":
    main()
