//! `configureRedis`: redis.conf and its access rules.

use std::path::{Path, PathBuf};

use config::Bootstrapper;
use delivery::peers::{redis_acl, redis_conf};
use host::Owner;

use super::files::{put, unwritable};
use super::secrets::Secrets;
use crate::failure::Failure;

/// The service whose part of the store holds the credential.
const SERVICE: &str = "security-bootstrapper-redis";

/// Writes both files, for `owner`, and tells where the configuration is.
///
/// # Errors
/// If the credential cannot be had or written.
pub(super) async fn configure(config: &Bootstrapper, owner: Option<Owner>) -> Result<PathBuf, Failure> {
    let files = &config.database_files;
    let dir = files.path.as_deref().unwrap_or(Path::new("/run/redis/conf"));
    let (conf, acl) = (dir.join(files.name.as_deref().unwrap_or("redis.conf")), dir.join("edgex_redis_acl.conf"));
    let login = Secrets::new(config, SERVICE).login(&config.redis_secret).await?;
    let rules = redis_acl(&login).map_err(unwritable)?;
    let text = redis_conf(&acl, files.max_clients).map_err(unwritable)?;
    // The configuration last: it is what others wait for, and a Redis without its rules would let everybody in.
    put(&acl, rules.as_bytes(), owner)?;
    put(&conf, text.as_bytes(), owner)?;
    Ok(conf)
}
