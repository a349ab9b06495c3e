//! Host networking for containers over netlink.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod docker;
pub mod driver;
pub mod engine;
pub mod firewall;
pub mod http;
pub mod ipam;
pub mod kernel;
pub mod model;
pub mod object;
pub mod plan;
pub mod store;
