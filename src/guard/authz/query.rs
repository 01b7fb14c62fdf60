//! Queries and filters as the engine reads them.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::target::decode;
use crate::guard::Filters;

/// A query's pairs, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query apart, as Go's `url.ParseQuery` does.
    ///
    /// # Errors
    /// Why it cannot be understood. Some engines refuse these, others drop the part and go on.
    pub fn parse(raw: &str) -> Result<Query, &'static str> {
        if raw.contains(';') {
            return Err("there is a semicolon in its query, which engines understand differently");
        }
        let mut pairs = Vec::new();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let text = |text: &str| {
                let plain = decode(text.replace('+', " ").as_bytes()).ok_or("its query cannot be decoded")?;
                String::from_utf8(plain).map_err(|_| "its query is not text")
            };
            pairs.push((text(key)?, text(value)?));
        }
        Ok(Query(pairs))
    }

    /// The value of a key; of several the first, as the engine takes it.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether the engine takes the key's value for "yes", which it does unless it is one of a few words.
    pub fn is_true(&self, key: &str) -> bool {
        let value = self.first(key).unwrap_or_default().trim().to_lowercase();
        !["", "0", "no", "false", "none"].contains(&value.as_str())
    }
}

/// Reads filters in either of the two forms that the API takes: `{"label":["x"]}` and `{"label":{"x":true}}`. `None` if that is
/// not what they are, or a key is there twice.
pub(super) fn filters(text: &str) -> Option<Filters> {
    if text.is_empty() {
        return Some(Filters::none());
    }
    let Pairs(by_key) = serde_json::from_str(text).ok()?;
    let mut filters = Filters::none();
    let mut seen: Vec<&str> = Vec::new();
    for (key, Values(values)) in &by_key {
        if seen.contains(&key.as_str()) || values.is_empty() {
            return None;
        }
        seen.push(key);
        values.iter().for_each(|value| filters.add(key, value));
    }
    Some(filters)
}

/// A JSON object with all its members, also those whose key is there twice.
struct Pairs(Vec<(String, Values)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(Members)
    }
}

/// The values of one filter. In the form with `true` and `false` the engine goes by the keys alone.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Values;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of strings, or an object of booleans")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut values: Vec<String> = Vec::new();
                while let Some((value, _)) = map.next_entry::<String, bool>()? {
                    if values.contains(&value) {
                        return Err(A::Error::custom("a value is there twice"));
                    }
                    values.push(value);
                }
                Ok(Values(values))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        from.deserialize_any(Either)
    }
}
