//! What workers would see, or could change, by another name than the one that was meant.

use std::{
    fs,
    path::{Path, PathBuf},
};

use herd_sandbox::{Files, Layer, Sight, real_path};

use crate::{error::Mistake, sandbox::Sandbox};

/// Every way in which workers with these files would see a directory of herd's own.
///
/// It is refused and not hidden: who sees a directory's surroundings may be able to move it out of what hides it.
pub(crate) fn of_own<'a>(own: impl IntoIterator<Item = (&'a str, &'a Path)>, files: &Files) -> Vec<Mistake> {
    let exposed = own.into_iter().filter_map(|(option, path)| {
        let Sight { source, system, .. } = files.sights(path).into_iter().next()?;
        let (path, source) = (path.display(), source.display());
        let remedy = if system { "choose a directory elsewhere" } else { "choose another, or show workers less" };
        Some(mistake(option, format!("{path} lies in {source}, which every worker sees; {remedy}")))
    });
    exposed.collect()
}

/// What is to be hidden and would not be.
pub(crate) fn of_hidden(hidden: &[PathBuf], files: &Files, sandbox: &Sandbox) -> Vec<Mistake> {
    let exposed = hidden.iter().enumerate().filter_map(|(index, path)| {
        let problem = unhidden(path, files, sandbox)?;
        Some(mistake(&format!("hidden[{index}]"), format!("{} cannot be hidden: {problem}", path.display())))
    });
    exposed.collect()
}

fn unhidden(path: &Path, files: &Files, sandbox: &Sandbox) -> Option<String> {
    if let Err(error) = fs::canonicalize(path) {
        return Some(format!("nothing is there to hide ({error}); correct it, or leave it out"));
    }
    let sights = files.sights(path);
    if let Some(sight) = sights.iter().find(|sight| sight.writable) {
        let source = sight.source.display();
        return Some(format!(
            "it lies in {source}, which is writable, so that one worker could move it to where others see it; keep it \
             elsewhere, or make less writable"
        ));
    }
    // Without a root of its own a worker reads what Landlock lets it read.
    let is_closed = sandbox.has(Layer::Files) || (sandbox.has(Layer::Landlock) && sights.is_empty());
    (!is_closed).then(|| {
        "that takes a root of the worker's own, which this host does not give; keep it where workers see nothing, or see \
         `herd doctor` for what is missing"
            .to_owned()
    })
}

/// What is shown by a name that leads, by a symbolic link, to where workers make names.
///
/// Such a mount is made without following links, since a worker could have made them. That is told by the names, so the
/// names have to be real ones.
pub(crate) fn of_links(files: &Files, options: &[PathBuf]) -> Vec<Mistake> {
    let shown = files.read_only.iter().enumerate().map(|(index, path)| {
        // Behind what options name is what the worker needs besides.
        (if index < options.len() { format!("read_only[{index}]") } else { "worker".to_owned() }, path)
    });
    let writable = files.writable.iter().enumerate().map(|(index, path)| (format!("writable[{index}]"), path));
    let exposed = shown.chain(writable).filter_map(|(option, path)| {
        let real = real_path(path);
        let changed = files.writable.iter().find(|writable| {
            let top = real_path(writable);
            let is_inside = path != *writable && path.starts_with(writable) || real != top && real.starts_with(&top);
            is_inside && (real != *path || top != **writable)
        })?;
        let [path, real, changed] = [path, &real, changed].map(|path| path.display());
        let problem = format!(
            "{path} leads to {real} by a symbolic link that a worker could change, since {changed} is writable; write both \
             paths without symbolic links"
        );
        Some(mistake(&option, problem))
    });
    exposed.collect()
}

fn mistake(option: &str, problem: String) -> Mistake {
    Mistake { option: option.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A directory by its real name.
    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().expect("a directory"));
            fs::create_dir_all(place.at("real/inner")).expect("directories");
            symlink(place.at("real"), place.at("link")).expect("a link");
            place
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().canonicalize().expect("it is there").join(name)
        }

        fn files(&self, read_only: &[&str], writable: &[&str]) -> Files {
            let mut files = Files::default();
            files.read_only = read_only.iter().map(|name| self.at(name)).collect();
            files.writable = writable.iter().map(|name| self.at(name)).collect();
            files
        }
    }

    #[test]
    fn herds_own_directories_are_refused_by_whatever_name_workers_would_see_them() {
        let place = Place::new();
        let refused = |own: &Path, files: Files| {
            let mistakes = of_own([("state_dir", own)], &files);
            mistakes.first().map(Mistake::to_string)
        };
        for (shown, own) in [("real", "real/state"), ("link", "real/state"), ("real", "link/state"), ("real", "link")] {
            for files in [place.files(&[shown], &[]), place.files(&[], &[shown])] {
                let told = refused(&place.at(own), files).unwrap_or_else(|| panic!("{own} in {shown}"));
                assert!(told.contains(&format!("{} lies in {}", place.at(own).display(), place.at(shown).display())));
            }
        }
        // Whether it is there yet, and whether a name leads there.
        symlink("/opt", place.at("opt")).expect("a link");
        for own in [Path::new("/opt/herd-test/kept"), &place.at("opt/herd-test"), Path::new("/usr/share")] {
            let told = refused(own, Files::default()).unwrap_or_else(|| panic!("{own:?}"));
            assert!(told.contains("which every worker sees; choose a directory elsewhere"), "{told}");
        }
        assert_eq!(refused(&place.at("real"), place.files(&["real/inner"], &[])), None, "what is beside is no matter");
    }

    #[test]
    fn a_link_to_where_workers_make_names_is_refused() {
        let place = Place::new();
        fs::create_dir(place.at("real/inner/deep")).expect("a directory");
        symlink("/usr", place.at("real/planted")).expect("a link");
        let refused =
            |read_only: &[&str], writable: &[&str]| !of_links(&place.files(read_only, writable), &[]).is_empty();
        assert!(refused(&["link/inner"], &["real"]), "a link that leads into it");
        assert!(refused(&["real/inner"], &["link"]), "it is named by a link");
        assert!(refused(&["link/inner"], &["link"]), "both are");
        assert!(refused(&["real/planted"], &["real"]), "a link that lies in it");
        assert!(refused(&[], &["real", "link/inner"]), "one writable directory in another");
        assert!(!refused(&["real/inner/deep"], &["real/inner"]), "real names");
        assert!(!refused(&["link"], &[]) && !refused(&["link"], &["real/inner"]), "nobody changes what it leads by");
    }
}
