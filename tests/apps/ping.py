"""ping.py ADDRESS...: asks each twice, by a ping socket, and says who answers, or why nobody does."""

import errno
import socket
import struct
import sys

ICMP, REQUEST, REPLY, IP_RECVERR = 1, 8, 0, 11


def asked(address):
    ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, ICMP)
    ping.settimeout(5)
    ping.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    ping.connect((address, 0))
    for number in (1, 2):
        payload = b"payload %d " % number * 50
        ping.send(struct.pack("!BBHHH", REQUEST, 0, 0, 0, number) + payload)
        packet = ping.recv(65536)
        kind, _, _, _, sequence = struct.unpack("!BBHHH", packet[:8])
        if (kind, sequence, packet[8:]) != (REPLY, number, payload):
            return "answers with something else"
    return "answers"


for address in sys.argv[1:]:
    try:
        print(address, asked(address))
    except OSError as error:
        print(address, errno.errorcode.get(error.errno, "no answer"))
