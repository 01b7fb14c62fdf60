//! Which Compose project is meant, and what belongs to it.
//!
//! Compose itself is asked for its definition (`config`): version 2 answers in JSON, with the project's name and the real names of
//! volumes; version 1 in YAML of a fixed layout, without the project's name. What Compose cannot tell is worked out by its rules
//! ([`default_name`]), and where those may not hold, every project is meant that was started in the same folder.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// What is known of the project that a command line means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    /// Its name. Several, if it is not certain.
    pub names: BTreeSet<String>,
    /// Folders: any project that has a container which was started from one of them may be meant. Empty if the name is certain.
    pub folders: BTreeSet<String>,
    /// What Compose said of it, if it was able to.
    pub definition: Option<Definition>,
}

/// A project's definition, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    /// The project's name; version 1 does not tell.
    pub name: Option<String>,
    /// The names of its services.
    pub services: BTreeSet<String>,
    /// Its volumes.
    pub volumes: Vec<DefinedVolume>,
}

/// A volume of a definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinedVolume {
    /// The name in the definition.
    pub key: String,
    /// The volume's own name; by default the project's name and the key.
    pub name: Option<String>,
    /// Whether Compose only uses it, and neither makes nor removes it.
    pub external: bool,
    /// Driver, options and labels; `None` if they are not known.
    pub details: Option<Details>,
}

/// How a volume is defined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The driver; empty for the engine's default.
    pub driver: String,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl DefinedVolume {
    /// The names that the volume has on the engine.
    pub fn names<'a>(&'a self, projects: &'a BTreeSet<String>) -> Box<dyn Iterator<Item = String> + 'a> {
        match &self.name {
            Some(name) => Box::new(std::iter::once(name.clone())),
            None => Box::new(projects.iter().map(|project| format!("{project}_{}", self.key))),
        }
    }
}

/// The name of a project that has none: that of its folder, in lower case, without what a name may not have.
pub fn default_name(folder: &str) -> String {
    normal_name(folder.trim_end_matches('/').rsplit('/').next().unwrap_or(folder))
}

/// A project's name as Compose takes it.
pub fn normal_name(text: &str) -> String {
    let lower = text.to_lowercase();
    lower.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')).collect()
}

/// The value that a file of `NAME=value` lines gives to a variable.
pub fn env_file_value(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut values = lines.filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='));
    values.rfind(|(key, _)| key.trim() == name).map(|(_, value)| unquoted(value.trim()))
}

#[derive(Deserialize)]
struct JsonDefinition {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    services: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    volumes: Option<BTreeMap<String, Option<JsonVolume>>>,
}

#[derive(Default, Deserialize)]
struct JsonVolume {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    external: bool,
    #[serde(default)]
    driver: Option<String>,
    #[serde(default)]
    driver_opts: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, Value>>,
}

/// Reads what `docker compose config --format json` prints; `None` if it is something else.
pub fn from_json(text: &str) -> Option<Definition> {
    let found: JsonDefinition = serde_json::from_str(text).ok()?;
    let plain = |values: Option<BTreeMap<String, Value>>| -> BTreeMap<String, String> {
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        values.unwrap_or_default().into_iter().map(|(key, value)| (key, text(value))).collect()
    };
    let volumes = found.volumes.unwrap_or_default().into_iter().map(|(key, volume)| {
        let volume = volume.unwrap_or_default();
        let details = Details {
            driver: volume.driver.unwrap_or_default(),
            options: plain(volume.driver_opts),
            labels: plain(volume.labels),
        };
        DefinedVolume { key, name: volume.name, external: volume.external, details: Some(details) }
    });
    Some(Definition {
        name: found.name,
        services: found.services.unwrap_or_default().into_keys().collect(),
        volumes: volumes.collect(),
    })
}

/// Reads what `docker-compose config` of version 1 prints: YAML with two spaces for each level and one key in a line. `None` if it
/// has no services, which every definition has.
pub fn from_yaml(text: &str) -> Option<Definition> {
    let mut found = Definition::default();
    let mut section = String::new();
    for line in text.lines() {
        let content = line.trim_start_matches(' ');
        let depth = line.len() - content.len();
        // Items of lists, and what is deeper than a volume's own keys, do not matter.
        let Some((key, value)) = key_and_value(content).filter(|_| !content.starts_with("- ")) else { continue };
        match (depth, section.as_str()) {
            (0, _) if key == "name" => found.name = Some(value),
            (0, _) => section = key,
            (2, "services") => drop(found.services.insert(key)),
            (2, "volumes") => found.volumes.push(DefinedVolume { key, ..DefinedVolume::default() }),
            (4, "volumes") => {
                if let Some(volume) = found.volumes.last_mut() {
                    match key.as_str() {
                        "name" => volume.name = Some(value),
                        "external" => volume.external = value == "true",
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(found).filter(|found| !found.services.is_empty())
}

fn key_and_value(line: &str) -> Option<(String, String)> {
    // A quoted key may have a colon inside.
    let quote = line.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let from = quote.and_then(|quote| line[1..].find(quote)).map_or(0, |at| at + 2);
    let colon = from + line[from..].find(':')?;
    let (key, value) = (&line[..colon], &line[colon + 1..]);
    Some((unquoted(key.trim()), unquoted(value.trim())))
}

fn unquoted(text: &str) -> String {
    let inside = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    match (inside('\''), inside('"')) {
        (Some(text), _) => text.replace("''", "'"),
        (_, Some(text)) => text.to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_as_compose_makes_them() {
        for (folder, name) in
            [("/srv/My Shop.v2", "myshopv2"), ("/srv/shop/", "shop"), ("/srv/a-b_c", "a-b_c"), ("/", "")]
        {
            assert_eq!(default_name(folder), name, "{folder}");
        }
        assert_eq!(
            env_file_value("A=1\n# COMPOSE_PROJECT_NAME=no\nCOMPOSE_PROJECT_NAME='yes'\n", "COMPOSE_PROJECT_NAME"),
            Some("yes".to_owned())
        );
        assert_eq!(env_file_value("A=1\n", "B"), None);
    }

    #[test]
    fn both_versions_definitions_are_read() {
        let json = r#"{"name":"shop","services":{"db":{"image":"x"}},"networks":{"default":{"name":"shop_default"}},
            "volumes":{"data":{"name":"shop_data"},"ext":{"name":"real","external":true},"bare":null,
            "opt":{"name":"o","driver":"local","driver_opts":{"type":"tmpfs","n":1},"labels":{"a":"b"}}}}"#;
        let found = from_json(json).expect("a definition");
        assert_eq!(found.name.as_deref(), Some("shop"));
        assert!(found.services.contains("db"));
        let brief: Vec<_> = found.volumes.iter().map(|v| (v.key.as_str(), v.name.as_deref(), v.external)).collect();
        let expected = [
            ("bare", None, false),
            ("data", Some("shop_data"), false),
            ("ext", Some("real"), true),
            ("opt", Some("o"), false),
        ];
        assert_eq!(brief, expected);
        let details = found.volumes[3].details.as_ref().expect("known");
        assert_eq!((details.driver.as_str(), details.options["n"].as_str()), ("local", "1"));

        let yaml = "services:\n  db:\n    image: busybox\n    volumes:\n    - data:/d:rw\nversion: '3.7'\nvolumes:\n  data: {}\n  \
                    ext:\n    external: true\n    name: real-ext\n  other:\n    driver_opts:\n      name: no\n    labels:\n      a: \
                    'b: c'\n    name: custom\n";
        let found = from_yaml(yaml).expect("a definition");
        let brief: Vec<_> = found.volumes.iter().map(|v| (v.key.as_str(), v.name.as_deref(), v.external)).collect();
        let expected = [("data", None, false), ("ext", Some("real-ext"), true), ("other", Some("custom"), false)];
        assert_eq!(brief, expected);
        assert_eq!(
            found.volumes[0].names(&["a".to_owned(), "b".to_owned()].into()).collect::<Vec<_>>(),
            ["a_data", "b_data"]
        );
        assert!(found.services.contains("db"));
        for nothing in ["", "Usage: config [options]\n", "null"] {
            assert!(from_yaml(nothing).is_none() && from_json(nothing).is_none(), "{nothing:?}");
        }
    }
}
