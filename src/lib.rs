//! voltool keeps Docker volumes from being lost: it snapshots them to S3-compatible storage or a directory, brings them back,
//! and refuses to destroy what exists nowhere else.
//!
//! The modules, from the bottom up; arrows point one way (see `docs/architecture.md`):
//!
//! | module | its one job |
//! | --- | --- |
//! | [`mounts`] | what is mounted where |
//! | [`units`] | sizes and durations as people write them |
//! | [`store`] | objects: a local directory, S3, and fakes for tests |
//! | [`repo`] | the repository format on top of `store` (see `docs/format.md`) |
//! | [`snapshot`] | from a volume to a snapshot |
//! | [`restore`] | from a snapshot to a volume, a directory or a tar |
//! | [`docker`] | the engine, through its API |
//! | [`inventory`] | volumes, containers, and who references what |
//! | [`guard`] | what a command would destroy, and whether that exists anywhere else |
//! | [`audit`] | the storage traps that an engine's volumes and containers are in |
//! | [`plugin`] | the Docker plugin: HTTP over a unix socket |
//! | [`daemon`] | what runs all the time |
//! | [`cli`] | the command line; the only module that prints |
//!
//! The library never prints and never exits.

pub mod audit;
pub mod cli;
pub mod daemon;
pub mod docker;
pub mod driver;
pub mod guard;
pub mod inventory;
pub mod mounts;
pub mod plugin;
pub mod repo;
pub mod restore;
pub mod snapshot;
pub mod store;
pub mod units;
