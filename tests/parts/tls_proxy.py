"""TLS before a server that has none: prints its address when it listens, ends when standard input ends.

    tls_proxy.py FOLDER HOST:PORT [PORT [PID]]     cert.pem and key.pem in FOLDER; PID is the server's, for whoever reads READY
"""
import socket
import ssl
import sys
import threading


def pipe(source, sink):
    """Copies until one of them ends, and then ends both ways of the other."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(context, plain, host, port):
    """One connection."""
    try:
        client = context.wrap_socket(plain, server_side=True)
        server = socket.create_connection((host, port))
    except OSError:
        return plain.close()
    threading.Thread(target=pipe, args=(server, client), daemon=True).start()
    pipe(client, server)


def main():
    folder, target = sys.argv[1], sys.argv[2]
    host, port = target.rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    listener = socket.create_server(("127.0.0.1", int(sys.argv[3])))

    def accept():
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=serve, args=(context, plain, host, int(port)), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(f"READY CLICKHOUSE_TLS_URL=https://127.0.0.1:{listener.getsockname()[1]} PID={sys.argv[4]}", flush=True)
    sys.stdin.read()


main()
