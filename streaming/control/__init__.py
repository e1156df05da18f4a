"""The control channel: what a running engine can be asked and told, over a ROUTER socket.

Here live the protocol, its server thread and a client; nothing here touches frames or sockets of the masks.
"""
