"""A link between two interfaces that delays, loses and reorders frames, for a kernel without netem.

link.py ONE OTHER DELAY_MS LOSS_PERCENT LATE_PERCENT: late frames take half as long again, so that
others overtake them.
"""

import array
import fcntl
import heapq
import random
import select
import socket
import struct
import sys
import time

ETH_P_ALL, PACKET_OUTGOING, SIOCETHTOOL = 3, 4, 0x8946
SET_TX_CHECKSUMS, SET_TSO, SET_GSO = 0x17, 0x1F, 0x24


def switch_off(name, what):
    """What is left to a network card would be left undone here (ethtool -K NAME ... off)."""
    value = array.array("B", struct.pack("II", what, 0))
    request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, request)


def opened(name):
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    frames.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    frames.bind((name, 0))
    frames.setblocking(False)
    return frames


def main(one, other, delay, loss, late):
    delay, loss, late = float(delay) / 1000, float(loss) / 100, float(late) / 100
    ends = {}
    near, far = opened(one), opened(other)
    ends[near], ends[far] = far, near
    waiting, number = [], 0
    while True:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for end in select.select(list(ends), [], [], pause)[0]:
            while True:
                try:
                    frame, source = end.recvfrom(65536)
                except BlockingIOError:
                    break
                if source[2] == PACKET_OUTGOING or random.random() < loss:
                    continue
                takes = delay * (1.5 if random.random() < late else 1)
                number += 1
                heapq.heappush(waiting, (time.monotonic() + takes, number, ends[end], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(waiting)
            try:
                to.send(frame)
            except OSError:
                pass


if sys.argv[1] == "prepare":
    for feature in (SET_TX_CHECKSUMS, SET_TSO, SET_GSO):
        switch_off(sys.argv[2], feature)
else:
    main(*sys.argv[1:])
