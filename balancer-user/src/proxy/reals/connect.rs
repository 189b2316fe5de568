//! A connection to a real, from nothing to the first byte.

use std::{io, net::SocketAddr, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::Why;

/// Connects; `mark` is that of the packets.
pub(super) async fn connect(
    real: SocketAddr,
    mark: Option<u32>,
    within: Duration,
) -> Result<TcpStream, Why> {
    let socket = if real.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(mark) = mark {
        setsockopt(&socket, sockopt::Mark, &mark).map_err(io::Error::from)?;
    }
    socket.set_nodelay(true)?;
    match timeout(within, socket.connect(real)).await {
        Ok(stream) => Ok(stream?),
        Err(_) => Err(Why::ConnectTimedOut),
    }
}
