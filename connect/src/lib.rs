//! The desktop twin of the phone app, as a library and the program
//! `farm-connect`: pairs with farms, keeps tunnels to them alive, and forwards
//! local ports to their services.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use farm_connect::{Client, Tunnel};
//!
//! let client = Client::open("/home/ada/.local/share/farm-connect".as_ref())?;
//! let farm = client.find("North field")?;
//! let tunnel = Tunnel::start(&client, &farm)?;
//! let stream = tunnel.open("greenhouse")?; // works at once; waits for the farm if it must
//! stream.write(b"GET / HTTP/1.0\r\n\r\n".as_ref().into()).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod attention;
pub mod cli;
mod client;
pub mod forward;
mod pair;
pub mod readings;
mod recorder;
mod slot;
mod status;
mod tunnel;

pub use attention::Attention;
pub use client::{Client, ClientError, FarmRecord};
pub use pair::{PairFailure, pair, pair_telling};
pub use status::Status;
pub use tunnel::{Tunnel, TunnelError};
