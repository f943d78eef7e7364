//! `configurePostgres`: the superuser's password, and the script of all users.

use std::path::{Path, PathBuf};

use config::{Bootstrapper, Environment};
use delivery::peers::{PostgresRoles, ScramSalt, postgres_script, postgres_sql};
use host::{Entropy, OsEntropy, Owner};

use super::files::{put, unwritable};
use super::secrets::Secrets;
use crate::failure::Failure;

/// The service whose part of the store holds the credentials, and the name of each.
const SERVICE: &str = "security-bootstrapper-postgres";
const SECRET: &str = "postgres";

/// What was written.
pub(super) struct Written {
    /// The superuser's name.
    pub(super) superuser: String,
    /// Its password, for initdb.
    pub(super) password_file: PathBuf,
    /// The script.
    pub(super) script: PathBuf,
}

/// Writes both files, for `owner`. A script whose name ends in `.sh` is for the image's shell, any other for psql;
/// `name` stands in for the configured one.
///
/// # Errors
/// If a credential cannot be had or written.
pub(super) async fn configure(
    config: &Bootstrapper,
    environment: &Environment,
    name: Option<&str>,
    owner: Option<Owner>,
) -> Result<Written, Failure> {
    let files = &config.database_files;
    let dir = files.path.as_deref().unwrap_or(Path::new("/postgres-init-scripts"));
    let name = name.or(files.name.as_deref()).unwrap_or("create-users.sh");
    let password_file = environment.value("POSTGRES_PASSWORD_FILE").filter(|f| f.starts_with('/'));
    let written = |superuser| Written {
        superuser,
        password_file: password_file.unwrap_or("/run/secrets/postgres_password").into(),
        script: dir.join(name),
    };
    let secrets = Secrets::new(config, SERVICE);
    let superuser = secrets.login(SECRET).await?;
    let mut services = Vec::new();
    for service in secrets.folders().await? {
        services.push(secrets.login(&format!("{service}/{SECRET}")).await?);
    }
    let roles = PostgresRoles { superuser, services };
    let mut salt = |salt: &mut ScramSalt| OsEntropy.fill(salt);
    let write = if name.ends_with(".sh") { postgres_script } else { postgres_sql };
    let text = write(&roles, &mut salt).map_err(unwritable)?;
    let written = written(roles.superuser.user().to_owned());
    put(&written.password_file, roles.superuser.password().expose().as_bytes(), owner)?;
    put(&written.script, text.as_bytes(), owner)?;
    Ok(written)
}
