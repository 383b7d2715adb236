use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::in_flight::InFlight;
use super::keys::{Node, nearest};
use super::{CameraArgument, Loaded, Settings, SettingsError};

/// Variables of the environment that begin so are settings: what follows is the key, with two underscores between tables,
/// such as `CALLOSITY__BROKER__URL`. Names of cameras are lower case there.
pub const VARIABLES: &str = "CALLOSITY__";

/// What settings are put together from; later ones win, key by key.
#[derive(Default)]
pub struct Layers {
    merged: Table,
    origins: BTreeMap<String, String>,
    files: Vec<PathBuf>,
}

impl Layers {
    /// Nothing is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file, and those in the folder beside it that is called as it is with `.d` at the end.
    ///
    /// # Errors
    /// One cannot be read, is no TOML, or has a key that there is not, or a value of the wrong kind.
    pub fn with_file(mut self, path: &Path) -> Result<Self, SettingsError> {
        self.add_file(path)?;
        let mut folder = path.as_os_str().to_owned();
        folder.push(".d");
        for file in toml_files(Path::new(&folder))? {
            self.add_file(&file)?;
        }
        Ok(self)
    }

    /// The variables of the environment that are settings, of those that are given.
    ///
    /// # Errors
    /// One names no setting, or its value is of the wrong kind.
    pub fn with_environment(
        mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let ours = variables.filter_map(|(name, value)| {
            let key = name.strip_prefix(VARIABLES)?;
            let key = key.to_lowercase().replace("__", ".");
            Some((name, key, value))
        });
        let mut ours: Vec<_> = ours.collect();
        ours.sort();
        for (name, key, value) in ours {
            self.set_text(&key, &value, &format!("variable {name}"))?;
        }
        Ok(self)
    }

    /// Sets a key to what a text means there.
    ///
    /// # Errors
    /// There is no such key, or the value is of the wrong kind.
    pub fn set_text(&mut self, key: &str, text: &str, origin: &str) -> Result<(), SettingsError> {
        let value = match find(key) {
            Some(node) if node.is_text() => Value::String(text.to_owned()),
            _ => toml_value(text),
        };
        self.set(key, value, origin)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// There is no such key, or the value is of the wrong kind.
    pub fn set(&mut self, key: &str, value: Value, origin: &str) -> Result<(), SettingsError> {
        let mut table = Table::new();
        let names: Vec<&str> = key.split('.').collect();
        insert(&mut table, &names, value);
        let shown = table.to_string();
        check_keys(&table, Node::root(), "", &|_| origin.to_owned())?;
        check_values(&shown, origin)?;
        self.add(table, &|_| origin.to_owned());
        Ok(())
    }

    /// The settings. What was set in flight is read from the state folder that they name, unless nobody flies with them.
    ///
    /// # Errors
    /// Together they are not what settings are.
    pub fn load(mut self) -> Result<Loaded, SettingsError> {
        let mut loaded = self.put_together()?;
        if let Ok(state) = loaded.state() {
            let in_flight = InFlight::open(&state, loaded.settings.camera.clone());
            let set = in_flight.table();
            if !set.is_empty() {
                let origin = format!("set in flight, {}", in_flight.path().display());
                self.add(set, &|_| origin.clone());
                loaded = self.put_together()?;
            }
            loaded.in_flight = Some(in_flight);
        }
        Ok(loaded)
    }

    /// Adds a camera. Those of files are left out where arguments name any.
    ///
    /// # Errors
    /// A key is not known, a value is of the wrong kind, or two cameras have one name.
    pub fn add_cameras(&mut self, cameras: Vec<CameraArgument>) -> Result<(), SettingsError> {
        if cameras.is_empty() {
            return Ok(());
        }
        self.merged.remove("camera");
        let mut tables = Table::new();
        for camera in cameras {
            let origin = format!("camera {}", camera.name);
            let table = Table::from_iter([(camera.name.clone(), camera.settings.into())]);
            let table = Table::from_iter([("camera".to_owned(), table.into())]);
            check_keys(&table, Node::root(), "", &|_| origin.clone())?;
            check_values(&table.to_string(), &origin)?;
            if tables.contains_key(&camera.name) {
                return Err(SettingsError::Value {
                    key: "camera".to_owned(),
                    value: camera.name,
                    origin: "arguments".to_owned(),
                    reason: "two cameras are called so: give each a name of its own with name=…"
                        .to_owned(),
                });
            }
            tables.extend(
                table
                    .into_iter()
                    .filter_map(|(_, named)| match named {
                        Value::Table(named) => Some(named),
                        _ => None,
                    })
                    .flatten(),
            );
        }
        let all = Table::from_iter([("camera".to_owned(), Value::Table(tables))]);
        self.add(all, &|_| "argument --camera".to_owned());
        Ok(())
    }

    fn put_together(&self) -> Result<Loaded, SettingsError> {
        let settings: Settings =
            Value::Table(self.merged.clone())
                .try_into()
                .map_err(|e: toml::de::Error| SettingsError::Parse {
                    origin: "the settings together".to_owned(),
                    reason: e.to_string(),
                })?;
        Ok(Loaded {
            settings,
            files: self.files.clone(),
            origins: self.origins.clone(),
            in_flight: None,
        })
    }

    fn add_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let text = fs::read_to_string(path).map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let shown = path.display().to_string();
        let parse = |e: toml::de::Error| SettingsError::Parse {
            origin: shown.clone(),
            reason: e.to_string().trim().to_owned(),
        };
        let table: Table = toml::from_str(&text).map_err(parse)?;
        let mut lines = BTreeMap::new();
        let spanned = DeTable::parse(&text).map_err(parse)?;
        lines_of(spanned.get_ref(), "", &text, &mut lines);
        let origin = |key: &str| match lines.get(key) {
            Some(line) => format!("{shown} line {line}"),
            None => shown.clone(),
        };
        check_keys(&table, Node::root(), "", &origin)?;
        check_values(&text, &shown)?;
        self.add(table, &origin);
        self.files.push(path.to_owned());
        Ok(())
    }

    fn add(&mut self, table: Table, origin: &dyn Fn(&str) -> String) {
        merge(&mut self.merged, table, "", &mut |key| {
            self.origins.insert(key.to_owned(), origin(key));
        });
    }
}

/// What the text means as a value of TOML; else the text itself.
fn toml_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn find(key: &str) -> Option<Node> {
    key.split('.')
        .try_fold(Node::root(), |node, name| node.child(name))
}

fn insert(table: &mut Table, names: &[&str], value: Value) {
    match names {
        [] => {}
        [name] => {
            table.insert((*name).to_owned(), value);
        }
        [name, rest @ ..] => {
            let mut inner = Table::new();
            insert(&mut inner, rest, value);
            table.insert((*name).to_owned(), Value::Table(inner));
        }
    }
}

/// Files of a folder, by name; none where there is no folder.
fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, SettingsError> {
    let failed = |source| SettingsError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|ending| ending == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The line of each key.
fn lines_of(table: &DeTable, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let key = join(path, name.get_ref());
        let before = &text.as_bytes()[..name.span().start.min(text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        if let DeValue::Table(inner) = value.get_ref() {
            lines_of(inner, &key, text, lines);
        }
        lines.insert(key, line);
    }
}

/// # Errors
/// A key is not known.
fn check_keys(
    table: &Table,
    node: Node,
    path: &str,
    origin: &dyn Fn(&str) -> String,
) -> Result<(), SettingsError> {
    for (name, value) in table {
        let key = join(path, name);
        match (node.child(name), value) {
            (Some(child), Value::Table(inner)) if child.is_table() => {
                check_keys(inner, child, &key, origin)?;
            }
            (Some(_), _) => {}
            (None, _) => {
                return Err(SettingsError::Unknown {
                    origin: origin(&key),
                    nearest: nearest(name, node.names()).map(|nearest| join(path, nearest)),
                    key,
                });
            }
        }
    }
    Ok(())
}

/// # Errors
/// A value is of the wrong kind.
fn check_values(text: &str, origin: &str) -> Result<(), SettingsError> {
    toml::from_str::<Settings>(text)
        .map(|_| ())
        .map_err(|e| SettingsError::Parse {
            origin: origin.to_owned(),
            reason: e.to_string().trim().to_owned(),
        })
}

/// Puts one table over another, and tells the key of each value that it sets.
fn merge(into: &mut Table, from: Table, path: &str, set: &mut dyn FnMut(&str)) {
    for (name, value) in from {
        let key = join(path, &name);
        match (into.get_mut(&name), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new, &key, set),
            (_, Value::Table(new)) => {
                let mut inner = Table::new();
                merge(&mut inner, new, &key, set);
                into.insert(name, Value::Table(inner));
            }
            (_, value) => {
                set(&key);
                into.insert(name, value);
            }
        }
    }
}
