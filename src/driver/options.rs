//! temp
use std::collections::BTreeMap;
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumeOptions {
    pub from: Option<Origin>,
    pub from_engine: Option<String>,
    pub on_remove: OnRemove,
    pub on_empty_restore: bool,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
}
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    pub volume: String,
    pub snapshot: Option<String>,
}
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRemove {
    Refuse,
    #[default]
    Snapshot,
    Trash,
}
impl VolumeOptions {
    pub fn parse(o: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut v = Self::default();
        for (k, x) in o {
            match k.as_str() {
                "from" => {
                    let (a, b) = x.split_once('@').map_or((x.as_str(), None), |(a, b)| (a, Some(b)));
                    v.from = Some(Origin { volume: a.into(), snapshot: b.map(Into::into) })
                }
                "on-remove" => {
                    v.on_remove = match x.as_str() {
                        "refuse" => OnRemove::Refuse,
                        "trash" => OnRemove::Trash,
                        _ => OnRemove::Snapshot,
                    }
                }
                "on-empty" => v.on_empty_restore = true,
                "uid" => v.uid = x.parse().ok(),
                "gid" => v.gid = x.parse().ok(),
                "mode" => v.mode = u32::from_str_radix(x, 8).ok(),
                _ => return Err(format!("unknown option '{k}'")),
            }
        }
        Ok(v)
    }
    pub fn describe(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}
