//! Farm Tunnel: the agent.
