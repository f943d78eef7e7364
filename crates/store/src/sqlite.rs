//! [`Backend`] in one SQLite file: `store.db`, WAL, synchronous=FULL.
//!
//! The file is hostile input. Its schema must be, to the letter, the one below; no view, trigger, index or further
//! table is accepted; nothing named in it is called; lengths and nesting are limited. A row that is wrong in any other
//! way is found by those above.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use crate::backend::{Backend, BackendError, Change, Id, NameRow, Reader, Record, StageError};
use crate::entry::{MAX_VALUE_BYTES, OVERHEAD_BYTES};
use crate::names::MAX_HIDDEN_BYTES;

/// The database file and how it is opened.
#[derive(Clone, Debug)]
pub struct Location {
    /// `store.db`.
    pub path: PathBuf,
    /// A VFS by name instead of the machine's own; then one connection alone uses the file, without shared memory.
    pub vfs: Option<String>,
}

/// The connection that writes.
#[derive(Debug)]
pub struct Sqlite {
    location: Location,
    connection: Option<Connection>,
}

/// A connection that only reads.
#[derive(Debug)]
pub struct SqliteReader(Connection);

impl Sqlite {
    /// Makes the tables in `location.path`, an empty file, with `records` in them; durable and in that one file on
    /// return, except for the file's own name in its directory.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn create(location: Location, records: &[(Record, &[u8])]) -> Result<Self, BackendError> {
        let connection = connect(&location, true)?;
        durable(&connection, &location)?;
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failure)?;
        for (_, _, sql) in SCHEMA {
            connection.execute_batch(sql).map_err(failure)?;
        }
        connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(failure)?;
        connection.pragma_update(None, "user_version", USER_VERSION).map_err(failure)?;
        for (record, bytes) in records {
            set_record(&connection, *record, bytes).map_err(failure)?;
        }
        connection.execute_batch("COMMIT").map_err(failure)?;
        let mut made = Self { location, connection: Some(connection) };
        made.checkpoint()?;
        Ok(made)
    }

    /// Opens an existing file and looks at its schema.
    ///
    /// # Errors
    /// [`BackendError::Damaged`] where the schema is not ours, to the letter.
    pub fn open(location: Location) -> Result<Self, BackendError> {
        let connection = connect(&location, true)?;
        check_schema(&connection)?;
        durable(&connection, &location)?;
        Ok(Self { location, connection: Some(connection) })
    }

    /// A connection for a thread that reads, where the VFS allows more than one.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn reader(&self) -> Result<SqliteReader, BackendError> {
        let connection = connect(&self.location, false)?;
        connection.pragma_update(None, "query_only", true).map_err(failure)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(failure)?;
        Ok(SqliteReader(connection))
    }

    fn connection(&self) -> Result<&Connection, BackendError> {
        self.connection.as_ref().ok_or_else(|| BackendError::Disk(io::ErrorKind::NotConnected.into()))
    }
}

impl Reader for Sqlite {
    fn value(&mut self, row: u64, max_bytes: usize) -> Result<Option<Vec<u8>>, BackendError> {
        value(self.connection()?, row, max_bytes)
    }

    fn names(&mut self, dir: &Id, max: usize) -> Result<Vec<NameRow>, BackendError> {
        names(self.connection()?, dir, max)
    }
}

impl Reader for SqliteReader {
    fn value(&mut self, row: u64, max_bytes: usize) -> Result<Option<Vec<u8>>, BackendError> {
        value(&self.0, row, max_bytes)
    }

    fn names(&mut self, dir: &Id, max: usize) -> Result<Vec<NameRow>, BackendError> {
        names(&self.0, dir, max)
    }
}

impl Backend for Sqlite {
    fn record(&mut self, record: Record, max_bytes: usize) -> Result<Option<Vec<u8>>, BackendError> {
        let sql = match record {
            Record::Head => "SELECT bytes FROM head WHERE id = 1",
            Record::Keyring => "SELECT bytes FROM keyring WHERE id = 1",
        };
        let mut statement = self.connection()?.prepare_cached(sql).map_err(failure)?;
        let bytes = statement.query_row([], |row| blob(row, 0, max_bytes)).optional().map_err(failure)?;
        Ok(bytes)
    }

    fn scan(&mut self, each: &mut dyn FnMut(NameRow)) -> Result<(), BackendError> {
        let mut statement =
            self.connection()?.prepare("SELECT dir, name, version, tag, row FROM name").map_err(failure)?;
        let mut rows = statement.query([]).map_err(failure)?;
        while let Some(row) = rows.next().map_err(failure)? {
            each(name_row(row).map_err(failure)?);
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), BackendError> {
        self.connection()?.execute_batch("BEGIN IMMEDIATE").map_err(failure)
    }

    fn stage(&mut self, changes: &[Change]) -> Result<(), StageError> {
        let connection = self.connection().map_err(|cause| StageError { cause, open: false })?;
        let staged = (|| {
            connection.prepare_cached("SAVEPOINT batch")?.execute([])?;
            changes.iter().try_for_each(|change| stage_one(connection, change))?;
            connection.prepare_cached("RELEASE batch")?.execute([])
        })();
        match staged {
            Ok(_) => Ok(()),
            Err(error) => {
                // A full disk may have ended the whole transaction, not the savepoint alone.
                let open = !connection.is_autocommit()
                    && connection.execute_batch("ROLLBACK TO batch; RELEASE batch").is_ok()
                    && !connection.is_autocommit();
                Err(StageError { cause: failure(error), open })
            }
        }
    }

    fn commit(&mut self) -> Result<(), BackendError> {
        let connection = self.connection()?;
        connection.prepare_cached("COMMIT").and_then(|mut s| s.execute([])).map_err(failure)?;
        Ok(())
    }

    fn rollback(&mut self) {
        if let Some(connection) = self.connection.as_ref().filter(|c| !c.is_autocommit())
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a rollback failed");
        }
    }

    fn reopen(&mut self) -> Result<(), BackendError> {
        // Dropped first: two connections that write would exclude each other.
        self.connection = None;
        let connection = connect(&self.location, true)?;
        check_schema(&connection)?;
        durable(&connection, &self.location)?;
        self.connection = Some(connection);
        // After a failed fsync the kernel may have given up pages of the WAL that it shows as written (Rebello et al.,
        // Can Applications Recover from fsync Failures?, ATC 2020). Commits behind them would be lost with them. A
        // checkpoint writes their content to the database file, where its own fsync counts.
        self.checkpoint()
    }

    fn recycle(&mut self) -> Result<(), BackendError> {
        // Not TRUNCATE: the log keeps its blocks, and needs none of a full disk.
        let busy: i64 =
            self.connection()?.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0)).map_err(failure)?;
        if busy == 0 { Ok(()) } else { Err(BackendError::Disk(io::ErrorKind::WouldBlock.into())) }
    }

    fn checkpoint(&mut self) -> Result<(), BackendError> {
        let busy: i64 =
            self.connection()?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(failure)?;
        if busy == 0 { Ok(()) } else { Err(BackendError::Disk(io::ErrorKind::WouldBlock.into())) }
    }
}

fn connect(location: &Location, writes: bool) -> Result<Connection, BackendError> {
    // Never O_CREAT: a store that is missing is missed, not made.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = match &location.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(&location.path, flags, vfs.as_str()),
        None => Connection::open_with_flags(&location.path, flags),
    }
    .map_err(failure)?;
    harden(&connection).map_err(failure)?;
    connection.set_prepared_statement_cache_capacity(24);
    if location.vfs.is_some() && writes {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failure)?;
    }
    Ok(connection)
}

/// What SQLite's own documentation advises for files of untrusted origin (sqlite.org/security.html).
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    ] {
        connection.set_db_config(option, on)?;
    }
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, 2 * 1024 * 1024),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 4096),
        (Limit::SQLITE_LIMIT_COLUMN, 16),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 10),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 3),
        (Limit::SQLITE_LIMIT_VDBE_OP, 10_000),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 32),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 8),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?; // a truncated file under a map is a SIGBUS
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// WAL and FULL, and the proof that they are in force.
fn durable(connection: &Connection, location: &Location) -> Result<(), BackendError> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failure)?;
    if mode != "wal" {
        return Err(damaged(format!("{} is in journal mode {mode}, not WAL", location.path.display())));
    }
    let wanted = if host::in_force("commits-synced") { "FULL" } else { "OFF" };
    connection.pragma_update(None, "synchronous", wanted).map_err(failure)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(failure)?;
    connection.pragma_update(None, "wal_autocheckpoint", 1000).map_err(failure)?;
    let level: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(failure)?;
    if level == 2 || !host::in_force("commits-synced") {
        Ok(())
    } else {
        Err(damaged(format!("synchronous is {level}, not FULL")))
    }
}

fn check_schema(connection: &Connection) -> Result<(), BackendError> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).map_err(failure);
    let (application, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if application != APPLICATION_ID {
        return Err(damaged(format!("application_id is {application:#x}: no edgekeep database")));
    }
    if version != USER_VERSION {
        return Err(damaged(format!("database format {version}; this program reads {USER_VERSION}")));
    }
    let mut statement =
        connection.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY name LIMIT 5").map_err(failure)?;
    let found = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<(String, String, Option<String>)>>>)
        .map_err(failure)?;
    let same = found.len() == SCHEMA.len()
        && found.iter().zip(SCHEMA).all(|((kind, name, sql), (want_kind, want_name, want_sql))| {
            kind == want_kind && name == want_name && sql.as_deref() == Some(want_sql)
        });
    if same || !host::in_force("schema-compared") {
        Ok(())
    } else {
        Err(damaged("its tables are not those of an edgekeep store".into()))
    }
}

fn stage_one(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    let changed = match change {
        Change::AddName(r) => connection
            .prepare_cached("INSERT INTO name (dir, name, version, tag, row) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![r.dir, r.name, integer(r.version)?, r.tag, integer(r.row)?])?,
        Change::SetName(r) => connection
            .prepare_cached("UPDATE name SET version = ?3, tag = ?4, row = ?5 WHERE dir = ?1 AND name = ?2")?
            .execute(params![r.dir, r.name, integer(r.version)?, r.tag, integer(r.row)?])?,
        Change::RemoveName { dir, name } => {
            connection.prepare_cached("DELETE FROM name WHERE dir = ?1 AND name = ?2")?.execute(params![dir, name])?
        }
        Change::AddValue { row, bytes } => connection
            .prepare_cached("INSERT INTO value (row, bytes) VALUES (?1, ?2)")?
            .execute(params![integer(*row)?, bytes])?,
        Change::SetValue { row, bytes } => connection
            .prepare_cached("UPDATE value SET bytes = ?2 WHERE row = ?1")?
            .execute(params![integer(*row)?, bytes])?,
        Change::RemoveValue { row } => {
            connection.prepare_cached("DELETE FROM value WHERE row = ?1")?.execute(params![integer(*row)?])?
        }
        Change::SetRecord { record, bytes } => set_record(connection, *record, bytes)?,
    };
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
}

fn set_record(connection: &Connection, record: Record, bytes: &[u8]) -> rusqlite::Result<usize> {
    let sql = match record {
        Record::Head => "INSERT INTO head (id, bytes) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET bytes = ?1",
        Record::Keyring => "INSERT INTO keyring (id, bytes) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET bytes = ?1",
    };
    connection.prepare_cached(sql)?.execute([bytes])
}

fn value(connection: &Connection, row: u64, max_bytes: usize) -> Result<Option<Vec<u8>>, BackendError> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM value WHERE row = ?1").map_err(failure)?;
    statement.query_row([integer(row).map_err(failure)?], |row| blob(row, 0, max_bytes)).optional().map_err(failure)
}

fn names(connection: &Connection, dir: &Id, max: usize) -> Result<Vec<NameRow>, BackendError> {
    let mut statement = connection
        .prepare_cached("SELECT dir, name, version, tag, row FROM name WHERE dir = ?1 LIMIT ?2")
        .map_err(failure)?;
    let most = i64::try_from(max).unwrap_or(i64::MAX);
    statement.query_map(params![dir, most], name_row).and_then(Iterator::collect).map_err(failure)
}

fn name_row(row: &Row<'_>) -> rusqlite::Result<NameRow> {
    let unsigned = |at: usize| {
        let signed: i64 = row.get(at)?;
        u64::try_from(signed).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, signed))
    };
    Ok(NameRow {
        dir: row.get(0)?,
        name: blob(row, 1, MAX_HIDDEN_BYTES)?.into_boxed_slice(),
        version: unsigned(2)?,
        tag: row.get(3)?,
        row: unsigned(4)?,
    })
}

fn blob(row: &Row<'_>, at: usize, max_bytes: usize) -> rusqlite::Result<Vec<u8>> {
    let bytes = row.get_ref(at)?.as_blob()?;
    if bytes.len() <= max_bytes {
        Ok(bytes.to_vec())
    } else {
        Err(rusqlite::Error::IntegralValueOutOfRange(at, i64::try_from(bytes.len()).unwrap_or(i64::MAX)))
    }
}

fn integer(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, i64::MAX))
}

fn failure(error: rusqlite::Error) -> BackendError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => BackendError::Full,
        // No room for the index of the log, which is a file of its own.
        Some(ErrorCode::SystemIoFailure)
            if error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) =>
        {
            BackendError::Full
        }
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory
            | ErrorCode::FileLockingProtocolFailed,
        ) => BackendError::Disk(io::Error::other(error)),
        _ => damaged(error.to_string()),
    }
}

fn damaged(what: String) -> BackendError {
    BackendError::Damaged { what }
}

/// The files that SQLite would take for parts of the database at `path`: WAL, shared memory, rollback journal.
pub(crate) fn leftovers(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// Longest value as it is stored.
pub(crate) const MAX_STORED_BYTES: usize = MAX_VALUE_BYTES + OVERHEAD_BYTES;

/// `ekp1` in ASCII: what `file(1)` and a curious operator see in the header.
const APPLICATION_ID: i64 = 0x656b_7031;
const USER_VERSION: i64 = 1;
const WRITER_CACHE_KIB: i64 = 2048;
const READER_CACHE_KIB: i64 = 512;

/// All that `sqlite_schema` may hold, by name.
const SCHEMA: &[(&str, &str, &str)] = &[
    ("table", "head", "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), bytes BLOB NOT NULL) STRICT"),
    ("table", "keyring", "CREATE TABLE keyring (id INTEGER PRIMARY KEY CHECK (id = 1), bytes BLOB NOT NULL) STRICT"),
    (
        "table",
        "name",
        "CREATE TABLE name (dir BLOB NOT NULL, name BLOB NOT NULL, version INTEGER NOT NULL, tag BLOB NOT NULL, \
         row INTEGER NOT NULL, PRIMARY KEY (dir, name)) WITHOUT ROWID, STRICT",
    ),
    ("table", "value", "CREATE TABLE value (row INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT"),
];
