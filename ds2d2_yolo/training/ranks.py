"""The processes that Ultralytics starts for several GPUs: how many there may be, and when they end."""

from __future__ import annotations

import os
import threading
import time

from ds2d2_yolo.errors import DS2D2Error

_WATCH_INTERVAL = 1  # seconds


def check_launch(devices: int) -> None:
    """Refuse a number of processes that differs from the number of devices on this machine.

    Args:
        devices (int): Number of devices in `device`, 0 on a CPU.

    Raises:
        DS2D2Error: If the numbers differ. On a CPU, Ultralytics would multiply losses by 0 devices. On several
            machines, it would count the devices of one machine only.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes != devices:
        raise DS2D2Error(
            f"{processes} processes for {devices} GPUs in device=: Ultralytics starts one process per GPU itself; run "
            "without torchrun, for example with device=0,1",
            2,
        )


def end_with_launcher() -> None:
    """End this process within a second after its parent has ended, whatever it does then.

    An interrupted Ultralytics kills torch's launcher, which then cannot end the processes that it has started: each has
    its own session. They would go on, or wait for each other, and keep their GPUs. Windows does not report the end.
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_WATCH_INTERVAL)
        os._exit(1)  # not an exception: the main thread may wait for other processes inside a library

    threading.Thread(target=watch, daemon=True).start()
