//! IpamDriver: pools and addresses for networks made with `--ipam-driver netagent`.

use serde_json::json;

use super::ADDRESS_SPACE;
use super::convert::{field, wanted_address};
use super::plugin::{Plugin, Reply, done, gone_is_fine, value};
use super::wire::{self, AddressGiven, OfAddress, OfPool, PoolGiven, RequestPool};
use crate::engine::PoolRequest;
use crate::ipam::PoolId;

pub(super) async fn handle(plugin: &Plugin, name: &str, method: &str, body: &[u8]) -> Reply {
    match name {
        // Replay tells us after dockerd's restart which leases it still has.
        "GetCapabilities" => Ok(Some(json!({
            "RequiresMACAddress": false, "RequiresRequestReplay": true
        }))),
        "GetDefaultAddressSpaces" => Ok(Some(json!({
            "LocalDefaultAddressSpace": ADDRESS_SPACE, "GlobalDefaultAddressSpace": ADDRESS_SPACE
        }))),
        "RequestPool" => request_pool(plugin, wire::parse(method, body)?).await,
        "ReleasePool" => release_pool(plugin, wire::parse(method, body)?).await,
        "RequestAddress" => request_address(plugin, wire::parse(method, body)?).await,
        "ReleaseAddress" => release_address(plugin, wire::parse(method, body)?).await,
        _ => Ok(None),
    }
}

async fn request_pool(plugin: &Plugin, call: RequestPool) -> Reply {
    let request = PoolRequest::try_from(&call)?;
    let pool = plugin.engine(move |engine| engine.request_pool(&request)).await?;
    value(&PoolGiven {
        pool_id: pool.to_string(),
        pool: pool.net().to_string(),
        data: serde_json::Map::new(),
    })
}

async fn release_pool(plugin: &Plugin, call: OfPool) -> Reply {
    // An id that is none of ours is a pool that is not here.
    let Ok(pool) = call.pool_id.parse::<PoolId>() else { return done() };
    gone_is_fine(plugin.engine(move |engine| engine.release_pool(&pool)).await)?;
    done()
}

async fn request_address(plugin: &Plugin, call: OfAddress) -> Reply {
    let pool: PoolId = call.pool_id.parse()?;
    let (wanted, purpose) = wanted_address(&call.address, &call.options)?;
    let given = plugin.engine(move |engine| engine.request_address(&pool, wanted, purpose)).await?;
    value(&AddressGiven { address: given.to_string(), data: serde_json::Map::new() })
}

async fn release_address(plugin: &Plugin, call: OfAddress) -> Reply {
    let Ok(pool) = call.pool_id.parse::<PoolId>() else { return done() };
    let address = field("Address", &call.address)?;
    gone_is_fine(plugin.engine(move |engine| engine.release_address(&pool, address)).await)?;
    done()
}
