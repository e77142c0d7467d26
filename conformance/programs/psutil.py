# /// script
# dependencies = ["psutil"]
# [tool.conformance]
# note = "what it tells of is the enclave, not the host"
# ///
"""What a process sees of itself and the machine."""

import psutil

for name, what in (
    ("processors", lambda: psutil.cpu_count() > 0),
    ("memory", lambda: psutil.virtual_memory().total > 0),
    ("own memory", lambda: psutil.Process().memory_info().rss > 0),
    ("threads", lambda: psutil.Process().num_threads()),
    ("times", lambda: psutil.Process().cpu_times().user >= 0),
    ("files", lambda: psutil.Process().open_files()),
    ("own number", lambda: psutil.Process().pid in psutil.pids()),
    ("age", lambda: 0 <= psutil.time.time() - psutil.Process().create_time() < 60),
    ("load", lambda: len(psutil.getloadavg())),
):
    try:
        print(name, what())
    except Exception as error:
        print(name, type(error).__name__, error)
