//! A volume plugin that keeps its volumes in a folder, as simple as one can be.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Answers the engine's requests on `socket` until the test ends; the volumes are folders below `root`.
pub fn serve(socket: &Path, root: &Path) {
    let listener = UnixListener::bind(socket).expect("a socket for the plugin");
    let root = root.to_owned();
    std::thread::spawn(move || {
        let mut volumes: BTreeMap<String, PathBuf> = BTreeMap::new();
        for mut client in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut part = [0; 4096];
            let (mut head, mut length) = (None, 0);
            while head.is_none_or(|end| request.len() < end + length) {
                match client.read(&mut part) {
                    Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
                    _ => break,
                }
                if head.is_none()
                    && let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n")
                {
                    let text = String::from_utf8_lossy(&request[..at]).to_lowercase();
                    let found = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
                    (head, length) = (Some(at + 4), found.unwrap_or(0));
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let path = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
            let body: Value = serde_json::from_slice(&request[head.unwrap_or(0)..]).unwrap_or_default();
            let name = body["Name"].as_str().unwrap_or_default().to_owned();
            let volume = |name: &str, folder: &Path| json!({"Name": name, "Mountpoint": folder});
            let answer = match (path.as_str(), volumes.get(&name).cloned()) {
                ("/Plugin.Activate", _) => json!({"Implements": ["VolumeDriver"]}),
                ("/VolumeDriver.Create", _) => {
                    let folder = root.join(&name);
                    std::fs::create_dir_all(&folder).expect("a folder for the volume");
                    volumes.insert(name, folder);
                    json!({})
                }
                ("/VolumeDriver.List", _) => {
                    json!({"Volumes": volumes.iter().map(|(name, folder)| volume(name, folder)).collect::<Vec<_>>()})
                }
                ("/VolumeDriver.Capabilities", _) => json!({"Capabilities": {"Scope": "local"}}),
                ("/VolumeDriver.Get", Some(folder)) => json!({"Volume": volume(&name, &folder)}),
                ("/VolumeDriver.Mount" | "/VolumeDriver.Path", Some(folder)) => json!({"Mountpoint": folder}),
                ("/VolumeDriver.Unmount", _) => json!({}),
                ("/VolumeDriver.Remove", Some(folder)) => {
                    let _ = std::fs::remove_dir_all(folder);
                    volumes.remove(&name);
                    json!({})
                }
                _ => json!({"Err": "no such volume"}),
            };
            let answer = answer.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
            // The engine may have hung up.
            let _ = client.write_all(format!("{head}{answer}").as_bytes());
        }
    });
}
