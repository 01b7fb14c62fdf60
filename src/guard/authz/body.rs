//! The definition of a container, read as the engine reads JSON: keys in any case, keys that are there twice are merged, and
//! what follows the first value is ignored.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// What the body of `POST /containers/create` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Whether the engine removes the container by itself when it ends.
    pub auto_remove: bool,
    /// Whether it asks for anonymous volumes. Those that the image declares are not in here.
    pub anonymous: bool,
}

/// Reads a definition; `None` if it cannot be read. Where it contradicts itself, "yes" counts.
pub fn read(body: &[u8]) -> Option<Definition> {
    let root: Node = serde_json::Deserializer::from_slice(body).into_iter().next()?.ok()?;
    let hosts = || root.all("hostconfig");
    let auto_remove = hosts().any(|host| host.all("autoremove").any(|value| *value == Node::True));
    let declared = root.all("volumes").any(|volumes| matches!(volumes, Node::Object(members) if !members.is_empty()));
    let binds = hosts().flat_map(|host| host.all("binds")).flat_map(Node::items);
    let bound = binds.into_iter().any(|bind| matches!(bind, Node::Text(text) if !text.contains(':')));
    let mut mounts = hosts().flat_map(|host| host.all("mounts")).flat_map(Node::items);
    let mounted = mounts.any(|mount| {
        let is = |key, test: fn(&str) -> bool| mount.all(key).any(|v| matches!(v, Node::Text(text) if test(text)));
        is("type", |text| text == "volume") && !is("source", |text| !text.is_empty())
    });
    Some(Definition { auto_remove, anonymous: declared || bound || mounted })
}

/// A JSON value, as far as it matters, with every member of an object.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Text(String),
    True,
    Other,
}

impl Node {
    /// The values of every member whose key the engine takes for that one; `key` in lower case.
    fn all(&self, key: &'static str) -> impl Iterator<Item = &Node> {
        let members = match self {
            Node::Object(members) => members.as_slice(),
            _ => &[],
        };
        members.iter().filter(move |(name, _)| name == key).map(|(_, value)| value)
    }

    fn items(&self) -> &[Node] {
        match self {
            Node::Array(items) => items,
            _ => &[],
        }
    }
}

/// Folds a key as Go's decoder does: ASCII, and the two letters outside of it that fold to ASCII ones.
fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            'ſ' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(if value { Node::True } else { Node::Other })
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Node>()? {
                    members.push((fold(&key), value));
                }
                Ok(Node::Object(members))
            }
        }
        from.deserialize_any(Any)
    }
}
