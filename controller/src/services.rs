//! The gRPC services of this controller, put together from its rooms.

use tonic::service::Routes;

use crate::server::Rooms;
use crate::supervise::{BoxError, Supervisor};

/// Builds every service and starts the tasks behind them.
///
/// # Errors
///
/// Whatever a room needs at start and does not get.
pub async fn services(_rooms: &Rooms, _supervisor: &mut Supervisor) -> Result<Routes, BoxError> {
    Ok(Routes::default())
}
