"""groups.py hear|say WORD [BROADCAST…]: datagrams to a group and to everybody on the network."""
import socket, struct, sys

GROUP, PORT = "239.1.2.3", 7000


def hear():
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end.bind(("0.0.0.0", PORT))
    end.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + bytes(4))
    return end


if sys.argv[1] == "hear":
    end = hear()
    print("ready", flush=True)
    while True:
        print("heard", end.recv(100).decode(), flush=True)
own = hear()
own.settimeout(2)
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for to in [GROUP, "255.255.255.255", *sys.argv[3:]]:
    word = f"{sys.argv[2]}-{to}"
    try:
        print(to, "sent", end.sendto(word.encode(), (to, PORT)) == len(word))
    except OSError as error:
        print(to, error.strerror)
# The sender is in the group as well.
print("own", own.recv(100).decode())
