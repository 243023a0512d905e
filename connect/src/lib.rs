//! Farm Tunnel: the client.
