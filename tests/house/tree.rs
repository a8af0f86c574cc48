//! Reads the files of `src/` and finds which file each import comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::Visit;
use syn::{Attribute, Item, UseTree, Visibility};

/// The path of a module, from the crate's root.
type ModulePath = Vec<String>;

/// For each file, those that it imports from, each with the path that shows it.
pub(crate) type Imports = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Default)]
pub(crate) struct File {
    pub(crate) lines: usize,
    /// What the file defines at the level of its modules.
    pub(crate) defined: Vec<Defined>,
}

pub(crate) struct Defined {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) visible: bool,
}

/// What a name in a module stands for.
#[derive(Clone)]
enum Meaning {
    /// An item that the file of the module defines.
    Item,
    Module(ModulePath),
    /// Another path, relative to the module.
    Alias(Vec<String>),
}

#[derive(Default)]
struct Module {
    file: String,
    names: BTreeMap<String, Vec<Meaning>>,
    globs: Vec<Vec<String>>,
    /// Paths in `use` and in code, with whether it is a re-export.
    paths: Vec<(Vec<String>, bool)>,
    /// All identifiers in the module's code outside `use`.
    mentioned: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
    modules: BTreeMap<ModulePath, Module>,
}

enum Target {
    File(String),
    Module(ModulePath),
}

impl Tree {
    pub(crate) fn read(source: &Path) -> Self {
        let mut tree = Self::default();
        tree.read_file(source, "lib.rs", vec![]);
        tree
    }

    pub(crate) fn files(&self) -> &BTreeMap<String, File> {
        &self.files
    }

    fn read_file(&mut self, source: &Path, name: &str, module: ModulePath) {
        let text = fs::read_to_string(source.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.files.insert(name.into(), File { lines: text.lines().count(), ..File::default() });
        self.read_items(source, name, module, &parsed.items);
    }

    fn read_items(&mut self, source: &Path, file: &str, path: ModulePath, items: &[Item]) {
        let mut module = Module { file: file.into(), ..Module::default() };
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Mod(inner) => {
                    let name = inner.ident.to_string();
                    let below: ModulePath = path.iter().cloned().chain([name.clone()]).collect();
                    match &inner.content {
                        Some((_, items)) => self.read_items(source, file, below.clone(), items),
                        None => {
                            let place: PathBuf = below.iter().collect();
                            let flat = format!("{}.rs", place.display());
                            let folder = format!("{}/mod.rs", place.display());
                            let there = if source.join(&flat).exists() { flat } else { folder };
                            self.read_file(source, &there, below.clone());
                        }
                    }
                    module.names.entry(name).or_default().push(Meaning::Module(below));
                    continue;
                }
                Item::Use(import) => {
                    let public = !matches!(import.vis, Visibility::Inherited);
                    let mut leaves = Vec::new();
                    flatten(&import.tree, &mut vec![], &mut leaves);
                    for (target, name) in leaves {
                        match name {
                            None => module.globs.push(target),
                            Some(name) => {
                                module.names.entry(name).or_default().push(Meaning::Alias(target.clone()));
                                module.paths.push((target, public));
                            }
                        }
                    }
                    continue;
                }
                _ => {}
            }
            if let Some((name, kind, visible)) = definition(item) {
                module.names.entry(name.clone()).or_default().push(Meaning::Item);
                let file = self.files.get_mut(file).expect("inserted before its items are read");
                file.defined.push(Defined { name, kind, visible });
            } else if let Item::Macro(made) = item {
                for name in defined_by_macro(&made.mac.tokens) {
                    module.names.entry(name).or_default().push(Meaning::Item);
                }
            }
            Code { module: &mut module }.visit_item(item);
        }
        self.modules.insert(path, module);
    }

    pub(crate) fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (path, module) in &self.modules {
            let globbed = module.globs.iter().flat_map(|glob| {
                module.mentioned.iter().map(|name| glob.iter().cloned().chain([name.clone()]).collect::<Vec<_>>())
            });
            // What is passed on only is no import of the file that passes it on.
            let own = module.paths.iter().filter(|(target, re_export)| {
                !re_export || target.last().is_some_and(|name| module.mentioned.contains(name))
            });
            for target in own.map(|(target, _)| target.clone()).chain(globbed) {
                for found in self.resolve(path, &target, 0) {
                    if let Target::File(file) = found
                        && file != module.file
                    {
                        imports.entry(module.file.clone()).or_default().entry(file).or_insert(target.join("::"));
                    }
                }
            }
        }
        imports
    }

    /// The files that define what `path` leads to from a module; or the modules that it is.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Vec<Target> {
        let Some((first, rest)) = path.split_first() else { return vec![Target::Module(from.to_vec())] };
        if depth > 30 {
            return vec![];
        }
        match first.as_str() {
            "crate" => return self.resolve(&[], rest, depth + 1),
            "self" => return self.resolve(from, rest, depth + 1),
            "super" => return self.resolve(&from[..from.len().saturating_sub(1)], rest, depth + 1),
            _ => {}
        }
        let Some(module) = self.modules.get(from) else { return vec![] };
        let mut found = Vec::new();
        for meaning in module.names.get(first).into_iter().flatten() {
            match meaning {
                Meaning::Item => found.push(Target::File(module.file.clone())),
                Meaning::Module(path) => found.extend(self.resolve(path, rest, depth + 1)),
                Meaning::Alias(path) if path.first() == Some(first) && path.len() == 1 => {}
                Meaning::Alias(path) => {
                    for target in self.resolve(from, path, depth + 1) {
                        match target {
                            Target::Module(path) => found.extend(self.resolve(&path, rest, depth + 1)),
                            file => found.push(file),
                        }
                    }
                }
            }
        }
        if found.is_empty() {
            for glob in &module.globs {
                let path: Vec<_> = glob.iter().chain(path).cloned().collect();
                found.extend(self.resolve(from, &path, depth + 1));
            }
        }
        found
    }
}

/// Collects the paths and identifiers of code.
struct Code<'a> {
    module: &'a mut Module,
}

impl<'ast> Visit<'ast> for Code<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.module.mentioned.extend(segments.first().cloned());
        if segments.len() > 1 && path.leading_colon.is_none() {
            self.module.paths.push((segments, false));
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        let mut leaves = Vec::new();
        flatten(&import.tree, &mut vec![], &mut leaves);
        self.module.paths.extend(leaves.into_iter().map(|(target, _)| (target, false)));
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        syn::visit::visit_macro(self, call);
        self.tokens(call.tokens.clone(), &[]);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !attribute.path().is_ident("doc")
            && let syn::Meta::List(list) = &attribute.meta
        {
            self.tokens(list.tokens.clone(), &[]);
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }
}

impl Code<'_> {
    /// The paths in the tokens of a macro; `prefix` is the path before a group, as in `use a::{b, c}`.
    fn tokens(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let is_colon = |at: usize| matches!(&tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.tokens(group.stream(), &[]);
                    at += 1;
                }
                TokenTree::Ident(ident) => {
                    let mut path: Vec<_> = prefix.iter().cloned().chain([ident.to_string()]).collect();
                    self.module.mentioned.insert(path[0].clone());
                    at += 1;
                    while is_colon(at) && is_colon(at + 1) {
                        match tokens.get(at + 2) {
                            Some(TokenTree::Ident(next)) => {
                                path.push(next.to_string());
                                at += 3;
                            }
                            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                                self.tokens(group.stream(), &path);
                                at += 3;
                                break;
                            }
                            _ => break,
                        }
                    }
                    if path.len() > 1 {
                        self.module.paths.push((path, false));
                    }
                }
                _ => at += 1,
            }
        }
    }
}

fn flatten(tree: &UseTree, prefix: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, Option<String>)>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, leaves);
            prefix.pop();
        }
        UseTree::Name(name) if name.ident == "self" => leaves.push((prefix.clone(), prefix.last().cloned())),
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            leaves.push((prefix.iter().cloned().chain([name.clone()]).collect(), Some(name)));
        }
        UseTree::Rename(rename) => {
            let target = prefix.iter().cloned().chain([rename.ident.to_string()]).collect();
            leaves.push((target, Some(rename.rename.to_string())));
        }
        UseTree::Glob(_) => leaves.push((prefix.clone(), None)),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, prefix, leaves)),
    }
}

/// Whether an item is there in tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return attribute.path().is_ident("test") };
        attribute.path().is_ident("cfg") && list.tokens.to_string() == "test"
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Name and kind of an item, and whether the whole crate can see it.
fn definition(item: &Item) -> Option<(String, &'static str, bool)> {
    let (ident, kind, vis) = match item {
        Item::Const(item) => (&item.ident, "constant", &item.vis),
        Item::Enum(item) => (&item.ident, "type", &item.vis),
        Item::Fn(item) => (&item.sig.ident, "function", &item.vis),
        Item::Macro(item) => return Some((item.ident.as_ref()?.to_string(), "macro", true)),
        Item::Static(item) => (&item.ident, "constant", &item.vis),
        Item::Struct(item) => (&item.ident, "type", &item.vis),
        Item::Trait(item) => (&item.ident, "type", &item.vis),
        Item::Type(item) => (&item.ident, "type", &item.vis),
        Item::Union(item) => (&item.ident, "type", &item.vis),
        _ => return None,
    };
    let visible = match vis {
        Visibility::Public(_) => true,
        Visibility::Restricted(to) => to.path.is_ident("crate"),
        Visibility::Inherited => false,
    };
    Some((ident.to_string(), kind, visible))
}

/// The names of items that a call of a macro writes out.
fn defined_by_macro(tokens: &TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let mut keyword = false;
    for token in tokens.clone() {
        match token {
            TokenTree::Ident(ident) if keyword => {
                names.push(ident.to_string());
                keyword = false;
            }
            TokenTree::Ident(ident) => {
                let ident = ident.to_string();
                keyword = matches!(ident.as_str(), "struct" | "enum" | "trait" | "fn" | "type" | "const" | "static");
            }
            TokenTree::Group(group) => {
                names.extend(defined_by_macro(&group.stream()));
                keyword = false;
            }
            _ => keyword = false,
        }
    }
    names
}

/// For each set of files that import from each other in a circle: a shortest circle, and all imports among them.
pub(crate) fn circles(imports: &Imports) -> Vec<String> {
    let reach: BTreeMap<_, _> = imports.keys().map(|file| (file, reachable(imports, file))).collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for file in imports.keys() {
        if !reach[file].contains(file) || seen.contains(file) {
            continue;
        }
        let members: BTreeSet<_> =
            reach[file].iter().filter(|other| reach.get(other).is_some_and(|back| back.contains(file))).collect();
        seen.extend(members.iter().copied().cloned());
        let shortest = members.iter().filter_map(|file| way_back(imports, file)).min_by_key(Vec::len);
        let mut text = format!("{} files; the shortest circle:\n", members.len());
        let shortest = shortest.unwrap_or_default();
        for pair in shortest.windows(2) {
            text += &format!("    {} → {} ({})\n", pair[0], pair[1], imports[&pair[0]][&pair[1]]);
        }
        text += "  all imports among them:\n";
        for from in &members {
            for (to, by) in imports[*from].iter().filter(|(to, _)| members.contains(to)) {
                text += &format!("    {from} → {to} ({by})\n");
            }
        }
        circles.push(text);
    }
    circles
}

fn reachable(imports: &Imports, from: &str) -> BTreeSet<String> {
    let (mut found, mut waiting) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(file) = waiting.pop() {
        for next in imports.get(&file).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(next.clone()) {
                waiting.push(next.clone());
            }
        }
    }
    found
}

/// A shortest way from a file back to itself.
fn way_back(imports: &Imports, start: &str) -> Option<Vec<String>> {
    let mut waiting = std::collections::VecDeque::from([vec![start.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = waiting.pop_front() {
        for next in imports.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            let longer: Vec<_> = way.iter().cloned().chain([next.clone()]).collect();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                waiting.push_back(longer);
            }
        }
    }
    None
}
