//! Passbolt, through `passbolt`: names are `[folder/…/]name`, and each level of folders is a
//! question of its own.

use secrecy::SecretString;
use serde_json::Value;

use super::{Adapter, Call, FetchError, Found, Invocation, json, list, ruby_list, text};

pub(super) struct Passbolt;

#[derive(Clone)]
struct Folder {
    id: String,
    /// Empty at the top.
    parent: String,
    name: String,
}

impl Adapter for Passbolt {
    fn needs_account(&self) -> bool {
        false
    }

    fn program(&self) -> Option<(&'static str, Invocation)> {
        Some(("Passbolt", Invocation::new("passbolt", ["--version"]).quiet()))
    }

    fn fetch(&self, call: &Call<'_>) -> Result<Found, FetchError> {
        let verify = Invocation::new("passbolt", ["verify"]).asking();
        call.run_or(&verify, || "Failed to login to Passbolt".to_owned())?;
        let names = call.prefixed();
        if names.is_empty() {
            return Err(FetchError::Refused("No secrets given to fetch".to_owned()));
        }
        let folders = folders(call, &names)?;
        let found = resources(call, &names, &folders)?;
        let missing: Vec<&str> = names
            .iter()
            .filter_map(|name| name.rsplit('/').next())
            .filter(|name| !found.iter().any(|(known, _)| known == name))
            .collect();
        if !missing.is_empty() {
            return Err(FetchError::Refused(format!(
                "Could not find the following secrets in Passbolt: {}",
                missing.join(", ")
            )));
        }
        Ok(found)
    }
}

/// All folders on the way to `names`, level by level.
fn folders(call: &Call<'_>, names: &[String]) -> Result<Vec<Folder>, FetchError> {
    let mut paths: Vec<Vec<&str>> = Vec::new();
    for name in names {
        let mut path: Vec<&str> = name.split('/').collect();
        path.pop();
        if !path.is_empty() && !paths.contains(&path) {
            paths.push(path);
        }
    }
    let mut tops: Vec<&str> = Vec::new();
    for top in paths.iter().filter_map(|path| path.first()) {
        if !tops.contains(top) {
            tops.push(top);
        }
    }
    if tops.is_empty() {
        return Ok(Vec::new());
    }
    let filter: Vec<String> = tops.iter().map(|name| is("Name", name)).collect();
    let mut all = list_folders(call, &filter.join(" || "))?;
    let top_folders = all.clone();
    for path in &paths {
        let Some(mut current) = top_folders.iter().find(|top| top.name == path[0]).cloned() else {
            continue;
        };
        for name in &path[1..] {
            let filter = format!("{} && {}", is("Name", name), is("FolderParentID", &current.id));
            let nested = list_folders(call, &filter)?;
            let Some(first) = nested.first().cloned() else { break };
            all.extend(nested);
            current = first;
        }
    }
    let known: Vec<String> = all.iter().map(|folder| path_of(folder, &all)).collect();
    let missing: Vec<String> =
        paths.iter().map(|path| path.join("/")).filter(|path| !known.contains(path)).collect();
    if !missing.is_empty() {
        return Err(FetchError::Refused(format!(
            "Could not find the following folders in Passbolt: {}",
            missing.join(", ")
        )));
    }
    Ok(all)
}

fn list_folders(call: &Call<'_>, filter: &str) -> Result<Vec<Folder>, FetchError> {
    const SHAPE: &str = "folders with `id` and `name`";
    let run = Invocation::new("passbolt", ["list", "folders", "--filter", filter, "--json"]);
    let output = call.run_or(&run, || "Could not read folders from Passbolt".to_owned())?;
    let answer = json(&output, &run)?;
    let folder = |folder: &Value| {
        Ok(Folder {
            id: text(folder, "id", &run, SHAPE)?.to_owned(),
            name: text(folder, "name", &run, SHAPE)?.to_owned(),
            parent: text(folder, "folder_parent_id", &run, SHAPE).unwrap_or_default().to_owned(),
        })
    };
    list(&answer, &run, "a list of folders")?.iter().map(folder).collect()
}

/// A folder's path from the top, as far as its parents are known.
fn path_of(folder: &Folder, all: &[Folder]) -> String {
    let mut names = vec![folder.name.as_str()];
    let mut current = folder;
    // No path is longer than the list, or it would go in a circle.
    for _ in all {
        let parent =
            all.iter().find(|other| !current.parent.is_empty() && other.id == current.parent);
        let Some(parent) = parent else { break };
        names.insert(0, &parent.name);
        current = parent;
    }
    names.join("/")
}

fn resources(call: &Call<'_>, names: &[String], folders: &[Folder]) -> Result<Found, FetchError> {
    let condition = |name: &String| match name.rsplit_once('/') {
        None => is("Name", name),
        Some((path, name)) => {
            let folder = folders.iter().find(|folder| path_of(folder, folders) == path);
            let parent = folder.map(|folder| folder.id.as_str()).unwrap_or_default();
            format!("({} && {})", is("Name", name), is("FolderParentID", parent))
        }
    };
    let filter: Vec<String> = names.iter().map(condition).collect();
    let mut args: Vec<String> = ["list", "resources", "--filter"].map(str::to_owned).into();
    args.push(filter.join(" || "));
    for folder in folders {
        args.extend(["--folder".to_owned(), folder.id.clone()]);
    }
    args.extend(["--column", "name", "--column", "password", "--json"].map(str::to_owned));
    let run = Invocation::new("passbolt", args);
    let output =
        call.run_or(&run, || format!("Could not read {} from Passbolt", ruby_list(names)))?;
    let answer = json(&output, &run)?;
    let named = |item: &Value| {
        const SHAPE: &str = "resources with `name` and `password`";
        let name = text(item, "name", &run, SHAPE)?.to_owned();
        Ok((name, SecretString::from(text(item, "password", &run, SHAPE)?)))
    };
    list(&answer, &run, "a list of resources")?.iter().map(named).collect()
}

/// A condition of Passbolt's filter language. Kamal escapes the value for a shell besides, which
/// changes nothing for plain names and finds no others.
fn is(field: &str, value: &str) -> String {
    format!("{field} == \"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}
