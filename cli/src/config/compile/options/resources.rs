//! Options about memory, processors, devices, mounts and security.

use serde_json::{Map as JsonMap, Value as Json, json};

use super::{Translated, Word, parse};

impl Translated {
    /// Adds an option of this group; false when it is none.
    pub(super) fn add_resource(&mut self, name: &str, word: &Word) -> Result<bool, String> {
        match name {
            "memory" | "m" => self.set("Memory", json!(parse::bytes(word.text()?)?)),
            "memory-reservation" => {
                self.set("MemoryReservation", json!(parse::bytes(word.text()?)?));
            }
            "memory-swap" => {
                let text = word.text()?;
                let bytes = if text == "-1" { -1 } else { parse::bytes(text)? };
                self.set("MemorySwap", json!(bytes));
            }
            "shm-size" => self.set("ShmSize", json!(parse::bytes(word.text()?)?)),
            "cpus" => self.set("NanoCpus", json!(nano_cpus(word.text()?)?)),
            "ulimit" => {
                let limit = ulimit(word.text()?)?;
                self.push("Ulimits", limit);
            }
            "gpus" => {
                let request = gpus(word.text()?)?;
                self.push("DeviceRequests", request);
            }
            "device" => self.add_device(word.text()?)?,
            "tmpfs" => {
                let text = word.text()?;
                let (path, options) = text.split_once(':').unwrap_or((text, ""));
                self.put_in("Tmpfs", path, json!(options));
            }
            "sysctl" => {
                let (key, value) = parse::pair(word.text()?)?;
                self.put_in("Sysctls", &key, json!(value));
            }
            "storage-opt" => {
                let (key, value) = parse::pair(word.text()?)?;
                self.put_in("StorageOpt", &key, json!(value));
            }
            "annotation" => {
                let (key, value) = parse::pair(word.text()?)?;
                self.put_in("Annotations", &key, json!(value));
            }
            "security-opt" => self.add_security(word.text()?)?,
            "mount" => {
                let mount = mount(word.text()?)?;
                self.push("Mounts", mount);
            }
            "device-read-bps" => self.add_rate("BlkioDeviceReadBps", word, true)?,
            "device-write-bps" => self.add_rate("BlkioDeviceWriteBps", word, true)?,
            "device-read-iops" => self.add_rate("BlkioDeviceReadIOps", word, false)?,
            "device-write-iops" => self.add_rate("BlkioDeviceWriteIOps", word, false)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn put_in(&mut self, key: &str, name: &str, value: Json) {
        let map = self.engine.host_config.entry(key.to_owned()).or_insert_with(|| json!({}));
        map[name] = value;
    }

    fn add_device(&mut self, text: &str) -> Result<(), String> {
        // A CDI name, `vendor.com/class=name`, is no path.
        if !text.starts_with('/') && text.contains('/') && text.contains('=') {
            self.push("DeviceRequests", json!({ "Driver": "cdi", "DeviceIDs": [text] }));
            return Ok(());
        }
        let is_mode = |part: &str| !part.is_empty() && part.bytes().all(|b| b"rwm".contains(&b));
        let parts: Vec<&str> = text.split(':').collect();
        let (container, permissions) = match parts.as_slice() {
            [host] => (*host, "rwm"),
            [host, mode] if is_mode(mode) => (*host, *mode),
            [_, container] => (*container, "rwm"),
            [_, container, mode] if is_mode(mode) => (*container, *mode),
            _ => return Err(format!("`{text}` is not HOST[:CONTAINER][:rwm]")),
        };
        self.push(
            "Devices",
            json!({ "PathOnHost": parts[0], "PathInContainer": container, "CgroupPermissions": permissions }),
        );
        Ok(())
    }

    fn add_security(&mut self, text: &str) -> Result<(), String> {
        if text == "systempaths=unconfined" {
            self.set("MaskedPaths", json!([]));
            self.set("ReadonlyPaths", json!([]));
            return Ok(());
        }
        let profile = text.strip_prefix("seccomp=").or_else(|| text.strip_prefix("seccomp:"));
        if let Some(profile) = profile
            && !matches!(profile, "unconfined" | "builtin")
            && !profile.trim_start().starts_with('{')
        {
            return Err("seccomp takes `unconfined`, `builtin` or the JSON of a profile; a file of the host is read by the `docker` program only".into());
        }
        self.push("SecurityOpt", json!(text));
        Ok(())
    }

    fn add_rate(&mut self, key: &str, word: &Word, in_bytes: bool) -> Result<(), String> {
        let text = word.text()?;
        let (path, rate) =
            text.rsplit_once(':').ok_or_else(|| format!("`{text}` is not DEVICE:RATE"))?;
        let rate = if in_bytes {
            parse::bytes(rate)?
        } else {
            rate.parse::<i64>().map_err(|_| format!("`{rate}` is no rate"))?
        };
        self.push(key, json!({ "Path": path, "Rate": rate }));
        Ok(())
    }
}

/// Billionths of a processor; exact, as decimals are no binary fractions.
fn nano_cpus(text: &str) -> Result<i64, String> {
    let error = || format!("`{text}` is no number of processors, such as 0.5");
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| error())? };
    let padded = format!("{fraction:0<9}");
    let nanos: i64 = padded.parse().map_err(|_| error())?;
    whole
        .checked_mul(1_000_000_000)
        .and_then(|w| w.checked_add(nanos))
        .filter(|n| *n >= 0)
        .ok_or_else(error)
}

fn ulimit(text: &str) -> Result<Json, String> {
    let error = || format!("`{text}` is not NAME=SOFT[:HARD]");
    let (name, limits) = text.split_once('=').ok_or_else(error)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| error());
    Ok(json!({ "Name": name, "Soft": number(soft)?, "Hard": number(hard)? }))
}

/// `all`, a count, or fields such as `device=0`, `"device=0,2"`, `capabilities=a,b`.
fn gpus(text: &str) -> Result<Json, String> {
    let mut request = json!({ "Driver": "", "Count": 0, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {} });
    if text == "all" {
        request["Count"] = json!(-1);
        return Ok(request);
    }
    if let Ok(count) = text.parse::<i64>() {
        request["Count"] = json!(count);
        return Ok(request);
    }
    let list = |value: &str| -> Vec<String> { value.split(',').map(str::to_owned).collect() };
    // Each field keeps the commas that follow it until the next `key=`, quotes or not.
    let mut fields: Vec<String> = Vec::new();
    for part in parse::csv(text) {
        match fields.last_mut() {
            Some(last) if !part.contains('=') => {
                last.push(',');
                last.push_str(&part);
            }
            _ => fields.push(part),
        }
    }
    let mut counted = false;
    for field in &fields {
        match field.split_once('=') {
            Some(("device", value)) => request["DeviceIDs"] = json!(list(value)),
            Some(("driver", value)) => request["Driver"] = json!(value),
            Some(("count", "all")) => (request["Count"], counted) = (json!(-1), true),
            Some(("count", value)) => {
                let count: i64 = value.parse().map_err(|_| format!("`{value}` is no count"))?;
                (request["Count"], counted) = (json!(count), true);
            }
            Some(("capabilities", value)) => {
                let mut capabilities = list(value);
                capabilities.push("gpu".into());
                request["Capabilities"] = json!([capabilities]);
            }
            _ => {
                return Err(format!(
                    "`{field}` is none of device=, count=, driver=, capabilities="
                ));
            }
        }
    }
    if !counted && request["DeviceIDs"].is_null() {
        request["Count"] = json!(1);
    }
    Ok(request)
}

/// `type=…,src=…,dst=…,…` as an entry of `Mounts`.
fn mount(text: &str) -> Result<Json, String> {
    let mut mount = json!({ "Type": "volume" });
    let mut group = |name: &str, key: &str, value: Json| {
        let object = match mount.get_mut(name) {
            Some(object) => object,
            None => {
                mount[name] = Json::Object(JsonMap::new());
                &mut mount[name]
            }
        };
        object[key] = value;
    };
    let mut plain: Vec<(&str, Json)> = Vec::new();
    for field in parse::csv(text) {
        let (key, value) = field.split_once('=').unwrap_or((field.as_str(), "true"));
        let flag = matches!(value, "true" | "1");
        match key.to_ascii_lowercase().as_str() {
            "type" => plain.push(("Type", json!(value))),
            "src" | "source" => {
                if value.starts_with('.') || value.starts_with('~') {
                    return Err(format!(
                        "`{value}`: the source of a mount has to be absolute, or the name of a volume"
                    ));
                }
                plain.push(("Source", json!(value)));
            }
            "dst" | "target" | "destination" => plain.push(("Target", json!(value))),
            "ro" | "readonly" => plain.push(("ReadOnly", json!(flag))),
            "consistency" => plain.push(("Consistency", json!(value))),
            "bind-propagation" => group("BindOptions", "Propagation", json!(value)),
            "volume-nocopy" => group("VolumeOptions", "NoCopy", json!(flag)),
            "volume-subpath" => group("VolumeOptions", "Subpath", json!(value)),
            "volume-driver" => group("VolumeOptions", "DriverConfig", json!({ "Name": value })),
            "tmpfs-size" => group("TmpfsOptions", "SizeBytes", json!(parse::bytes(value)?)),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("`{value}` is no octal mode"))?;
                group("TmpfsOptions", "Mode", json!(mode));
            }
            _ => return Err(format!("`{key}` is no field of a mount that dhow knows")),
        }
    }
    for (key, value) in plain {
        mount[key] = value;
    }
    if mount.get("Target").is_none() {
        return Err("a mount needs dst=".into());
    }
    Ok(mount)
}
