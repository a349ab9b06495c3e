//! One database file: read and verified as a copy, opened, written in transactions, and opened
//! again after an error of the disk.
//!
//! Knows tables, keys and bytes; what they mean is for `codec`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition, TableHandle, WriteTransaction,
};

use super::backend::Backend;
use super::dirs::{create_private, io_error, open_private};
use super::fault::Fault;
use super::guard::quietly;
use crate::model::{Error, ErrorClass, Result};

/// Cache of one database in bytes: a guess, far above what a few thousand records need.
const CACHE_BYTES: usize = 16 << 20;

/// How far a commit goes before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// On the disk: survives a power failure.
    Disk,
    /// With the kernel: survives the death of the agent, which is all that a tmpfs can do.
    Kernel,
}

/// A table of a database.
pub(super) type Table = &'static str;

/// What a database holds: keys and values by table.
pub(super) type Contents = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// One change of a table.
#[derive(Debug)]
pub(super) enum Write {
    /// Add or replace.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Remove, if it is there.
    Remove(Table, Vec<u8>),
    /// Make these the only entries whose keys begin with the prefix.
    Replace(Table, Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>),
}

/// A database file that is ours.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    sync: Sync,
    /// Closed after an error of the disk, until the next commit opens it again.
    open: Option<Database>,
}

impl DatabaseFile {
    /// Opens the file, or makes one with these tables. All of it is read from a copy in memory
    /// first, and judged by `decode`: a file that is refused has not been touched.
    pub(super) fn open<T>(
        path: &Path,
        tables: &[Table],
        sync: Sync,
        decode: impl FnOnce(&Contents) -> Result<T>,
    ) -> Result<(Self, T)> {
        let mut this = Self { path: path.to_owned(), sync, open: None };
        match path.symlink_metadata() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => this.create(tables)?,
            Err(error) => return Err(io_error(this.doing("open"), &error)),
        }
        let mut bytes = Vec::new();
        open_private(path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| io_error(this.doing("read"), &error))?;
        if bytes.is_empty() {
            return Err(this.error("read", Fault::Damaged("the file is empty".into())));
        }
        let contents =
            this.guarded("read", || read_copy(&bytes, tables).map_err(Fault::of_copy))?;
        drop(bytes);
        let decoded = decode(&contents)?;
        this.reopen()?;
        Ok((this, decoded))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new database beside its place and moves it there when it is complete, so that an
    /// incomplete one is never met.
    fn create(&self, tables: &[Table]) -> Result<()> {
        let draft = self.path.with_extension("redb.new");
        let failed = |error: &io::Error| io_error(self.doing("make"), error);
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
            Ok(()) | Err(_) => {}
        }
        let made = create_private(&draft).map_err(|error| failed(&error)).and_then(|file| {
            self.guarded("make", || {
                let db = self.database(file)?;
                write(&db, |transaction| {
                    tables.iter().try_for_each(|table| {
                        transaction.open_table(definition(table))?;
                        Ok(())
                    })
                })
            })
        });
        if made.is_err() {
            // It is only in the way; the next attempt would remove it as well.
            let _ = std::fs::remove_file(&draft);
        }
        made?;
        std::fs::rename(&draft, &self.path).map_err(|error| failed(&error))?;
        let parent = self.path.parent().unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(|error| failed(&error))
    }

    fn database(&self, file: File) -> Result<Database, Fault> {
        let backend = Backend::new(file, self.sync)?;
        Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
    }

    fn reopen(&mut self) -> Result<()> {
        let db = self.guarded("open", || self.database(open_private(&self.path)?))?;
        self.open = Some(db);
        Ok(())
    }

    /// Writes all of it or nothing. After an error the file is opened again by the next commit.
    pub(super) fn commit(&mut self, writes: &[Write]) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        if self.open.is_none() {
            self.reopen()?;
        }
        let Some(db) = self.open.take() else { return Ok(()) };
        // Dropped inside where it fails: redb answers nothing more after an error of the disk.
        let db = self.guarded("write", || {
            write(&db, |transaction| {
                writes.iter().try_for_each(|change| apply(transaction, change))
            })?;
            Ok(db)
        })?;
        self.open = Some(db);
        Ok(())
    }

    /// Runs what enters redb: it asserts what damaged pages may break, and a damaged file must
    /// end in a message, not in a crash.
    fn guarded<T>(&self, verb: &str, work: impl FnOnce() -> Result<T, Fault>) -> Result<T> {
        quietly(work)
            .unwrap_or_else(|| Err(Fault::Damaged("its pages do not fit together".into())))
            .map_err(|fault| self.error(verb, fault))
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} \"{}\"", self.path.display())
    }

    fn error(&self, verb: &str, fault: Fault) -> Error {
        let doing = self.doing(verb);
        match fault {
            Fault::Io(error) if is_full(&error) => {
                let full = format!("the disk that holds \"{}\" is full", self.path.display());
                let made = Error::unavailable(doing, full)
                    .advise("make room on it and try again; nothing that was stored is lost");
                error.raw_os_error().map_or(made.clone(), |errno| made.with_errno(errno))
            }
            Fault::Io(error) => io_error(doing, &error),
            Fault::InUse => in_use(&self.path),
            Fault::OldFormat(version) => Error::unavailable(
                doing,
                format!("it is a redb file of format {version}, which this netagent cannot read"),
            )
            .advise("start the netagent version that wrote it, or move the file aside"),
            Fault::Damaged(why) => self.damaged(doing, &why),
        }
    }

    fn damaged(&self, doing: String, why: &str) -> Error {
        Error::new(ErrorClass::Unavailable, doing, format!("the file is damaged: {why}"))
            .advise(move_aside(&self.path))
    }
}

/// What to do about a file that cannot be read.
pub(super) fn move_aside(path: &Path) -> String {
    let path = path.display();
    format!(
        "move it aside (mv {path} {path}.damaged) or restore it from a backup, then start again; \
         what it described has to be made anew"
    )
}

/// The refusal where another process has the file.
pub(super) fn in_use(path: &Path) -> Error {
    Error::conflict(format!("open \"{}\"", path.display()), "another netagent uses it")
        .advise("stop the other one, or name another directory")
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table)
}

/// Everything in a database file of which these are the bytes, with all checksums verified.
fn read_copy(bytes: &[u8], tables: &[Table]) -> Result<Contents, Fault> {
    let backend = InMemoryBackend::new();
    backend.set_len(bytes.len() as u64)?;
    backend.write(0, bytes)?;
    let mut db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
    if !db.check_integrity()? {
        return Err(Fault::Damaged("a checksum of its pages does not match".into()));
    }
    let transaction = db.begin_read()?;
    let foreign = transaction.list_tables()?.find(|table| !tables.contains(&table.name()));
    if let Some(table) = foreign {
        return Err(Fault::Damaged(format!(
            "it has a table \"{}\", which this netagent does not know; a newer one may have \
             written it",
            table.name()
        )));
    }
    let mut contents = Contents::new();
    for name in tables {
        let table = transaction.open_table(definition(name))?;
        let mut entries = BTreeMap::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            entries.insert(key.value().to_vec(), value.value().to_vec());
        }
        if table.len()? != entries.len() as u64 {
            return Err(Fault::Damaged(format!("records of table \"{name}\" are missing")));
        }
        contents.insert(name, entries);
    }
    Ok(contents)
}

fn write(
    db: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut transaction = db.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|error| Fault::Damaged(error.to_string()))?;
    work(&transaction)?;
    Ok(transaction.commit()?)
}

fn apply(transaction: &WriteTransaction, change: &Write) -> Result<(), Fault> {
    match change {
        Write::Put(table, key, value) => {
            transaction.open_table(definition(table))?.insert(key.as_slice(), value.as_slice())?;
        }
        Write::Remove(table, key) => {
            transaction.open_table(definition(table))?.remove(key.as_slice())?;
        }
        Write::Replace(table, prefix, entries) => {
            let mut table = transaction.open_table(definition(table))?;
            let mut same = std::collections::BTreeSet::new();
            let mut gone = Vec::new();
            for entry in table.range(prefix.as_slice()..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                match entries.get(key.value()) {
                    Some(wanted) if wanted == value.value() => {
                        same.insert(key.value().to_vec());
                    }
                    Some(_) => {}
                    None => gone.push(key.value().to_vec()),
                }
            }
            for key in gone {
                table.remove(key.as_slice())?;
            }
            for (key, value) in entries.iter().filter(|(key, _)| !same.contains(*key)) {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
    }
    Ok(())
}
