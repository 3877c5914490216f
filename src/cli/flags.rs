//! The flags of `serve` that set configuration keys: one for each key of the server, made from the
//! table of keys, so that none is missing and each help says the same as the reference.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{self, Context, Key, Scope, Sources, keys};

/// The keys that flags gave, with their values.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyFlags(pub(super) Vec<(&'static Key, String)>);

/// Each key that has a flag, with the flag's name without its dashes.
static FLAGS: LazyLock<Vec<(&'static Key, String)>> = LazyLock::new(|| {
    let of_server = keys().filter(|key| key.scope != Scope::Route);
    of_server.map(|key| (key, key.flag().trim_start_matches('-').to_owned())).collect()
});

/// Each key's default as one would write it.
static DEFAULTS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let resolved = config::resolve(&Sources::default(), &Context::new(1));
    let listing = resolved.expect("the defaults hold").listing;
    listing.into_iter().map(|listed| (listed.key, listed.value)).collect()
});

impl Args for KeyFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(|(key, name)| arg(key, name)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KeyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for (key, _) in FLAGS.iter() {
            if let Some(values) = matches.get_many::<String>(key.name) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                self.0.push((key, values.join(",")));
            }
        }
        Ok(())
    }
}

fn arg(key: &'static Key, name: &'static str) -> Arg {
    let arg = Arg::new(key.name).long(name).value_name(key.syntax.value_name()).help(help(key));
    let arg = match key.name.split_once('.') {
        None => arg,
        // `-h` is for the flags one uses by hand.
        Some(("head", _)) => arg.help_heading("Limits of a request head").hide_short_help(true),
        Some(("limits", _)) => arg.help_heading("Limits of a connection").hide_short_help(true),
        Some(("deflate", _)) => arg.help_heading("Compression").hide_short_help(true),
        Some(_) => arg,
    };
    match key.syntax {
        syntax if syntax.is_switch() => {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        syntax if syntax.is_list() => arg.action(ArgAction::Append),
        _ => arg,
    }
}

/// What the key means, its environment variable and its default.
fn help(key: &Key) -> String {
    let meaning = key.meaning().replace('`', "");
    let repeated = if key.syntax.is_list() { " May be repeated." } else { "" };
    let variable = key.environment(None);
    let default = match DEFAULTS.get(key.name).map(String::as_str) {
        None | Some("") => String::new(),
        Some(value) => format!(" [default: {}]", value.trim_matches(['[', ']']).replace('"', "")),
    };
    format!("{meaning}{repeated} [env: {variable}]{default}")
        .replace("[default: ]", "[default: none]")
}
