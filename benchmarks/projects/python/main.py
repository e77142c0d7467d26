"""Work for the interpreter: `compute` allocates next to nothing, `allocation` hardly computes."""

import json
import sys
import time


def nbody(steps):
    bodies = [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 39.47], [4.84, -1.16, -0.10, 0.6, 2.81, -0.02, 0.037]]
    bodies += [
        [8.34, 4.12, -0.4, -1.01, 1.82, 0.008, 0.011],
        [12.89, -15.11, -0.22, 1.08, 0.86, -0.01, 0.0017],
    ]
    for _ in range(steps):
        for i, a in enumerate(bodies):
            for b in bodies[i + 1 :]:
                dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
                pull = 0.01 / (dx * dx + dy * dy + dz * dz) ** 1.5
                for axis, d in ((3, dx), (4, dy), (5, dz)):
                    a[axis] -= d * b[6] * pull
                    b[axis] += d * a[6] * pull
        for a in bodies:
            a[0] += 0.01 * a[3]
            a[1] += 0.01 * a[4]
            a[2] += 0.01 * a[5]
    return bodies[0][0]


def sieve(limit):
    marks = bytearray(limit)
    count = 0
    for n in range(2, limit):
        if not marks[n]:
            count += 1
            for multiple in range(n * n, limit, n):
                marks[multiple] = 1
    return count


def compute(weight):
    return nbody(150 * weight), sieve(4000 * weight)


def tree(depth):
    return (tree(depth - 1), tree(depth - 1)) if depth else ()


def allocation(weight):
    """Objects small and large, some kept for a while; at most some 12 MiB at a time."""
    kept = []
    for number in range(4 * weight):
        kept.append([tree(8), {str(key): [key] * 8 for key in range(200)}, bytearray(100_000)])
        if len(kept) > 40:
            del kept[::2]
        "".join(str(part) for part in range(number % 500 + 500)).split("7")
    return len(kept)


weight = int(sys.argv[2])
work = {"compute": compute, "allocation": allocation}[sys.argv[1]]
work(1)
times = []
for _ in range(int(sys.argv[3])):
    begin = time.perf_counter()
    work(weight)
    times.append(time.perf_counter() - begin)
print(json.dumps(times))
