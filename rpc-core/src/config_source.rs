//! Configuration from text that people edit, and from variables that operators set.

use crate::config::RpcEnvConfig;
use crate::error::{ErrorKind, RpcError};
use toml::{Table, Value};

impl RpcEnvConfig {
    /// Sets what a TOML document says. Keys are written with dots or as tables, so that
    /// `rpc.askTimeout = "5s"` and `[rpc]` with `askTimeout = "5s"` are the same. Numbers may stand
    /// without quotes where the key has no unit.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`]: where the document is not TOML, or as [`RpcEnvConfig::set`].
    ///
    /// ```
    /// # use rpc_core::RpcEnvConfig;
    /// let text = r#"
    /// [rpc]
    /// askTimeout = "5s"
    /// inbox.maxMessages = 100
    /// "#;
    /// let config = RpcEnvConfig::client("c").set_toml(text)?;
    /// assert_eq!(config.limits().inbox_max_messages(), 100);
    /// # Ok::<(), rpc_core::RpcError>(())
    /// ```
    pub fn set_toml(self, text: &str) -> Result<Self, RpcError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            RpcError::new(
                ErrorKind::InvalidConfig,
                format!("the configuration is not TOML: {error}"),
            )
        })?;
        let mut pairs = Vec::new();
        flatten("", table, &mut pairs)?;
        self.set_all(pairs)
    }

    /// Sets what the variables with a prefix say: after it comes the key in capitals, with `_` for
    /// each dot and before each capital of the key. With the prefix `MYAPP_`, the variable
    /// `MYAPP_RPC_ASK_TIMEOUT` sets `rpc.askTimeout`. Variables without the prefix are not looked
    /// at, nor are those that go on with another word than keys do (`MYAPP_LOG`), which are the
    /// program's own; `std::env::vars()` gives all of them.
    ///
    /// # Errors
    /// As [`RpcEnvConfig::set`]: a variable like `MYAPP_RPC_..` or `MYAPP_PORT_..` that is no key is an error.
    pub fn set_env_vars(
        self,
        prefix: &str,
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, RpcError> {
        let ours = vars.into_iter().filter_map(|(name, value)| {
            let rest = name.strip_prefix(prefix)?;
            let first = rest.split('_').next()?.to_lowercase();
            FIRST_WORDS.contains(&&*first).then(|| (rest.to_owned(), value))
        });
        ours.into_iter().try_fold(self, |config, (name, value)| {
            let key = Self::known_keys().find(|key| variable(key.name) == name);
            match key {
                Some(key) => config.set(key.name, &value),
                // Written as a key, so that the nearest one is suggested.
                None => {
                    config.set(&name.to_lowercase().replace('_', "."), &value).map_err(|error| {
                        let text = format!("variable {prefix}{name}: {}", error.text());
                        RpcError::new(error.kind(), text)
                    })
                }
            }
        })
    }
}

/// How keys begin, and those of Spark, which are told what they are called here.
const FIRST_WORDS: [&str; 3] = ["rpc", "port", "spark"];

/// How a key is written as a variable.
fn variable(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + 4);
    for letter in key.chars() {
        match letter {
            '.' => name.push('_'),
            letter if letter.is_ascii_uppercase() => name.extend(['_', letter]),
            letter => name.push(letter.to_ascii_uppercase()),
        }
    }
    name
}

fn flatten(path: &str, table: Table, into: &mut Vec<(String, String)>) -> Result<(), RpcError> {
    for (name, value) in table {
        let key = if path.is_empty() { name } else { format!("{path}.{name}") };
        let text = match value {
            Value::Table(inner) => {
                flatten(&key, inner, into)?;
                continue;
            }
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            other => {
                return Err(RpcError::new(
                    ErrorKind::InvalidConfig,
                    format!(
                        "{key} is of type {}, expected a text or a whole number",
                        other.type_str()
                    ),
                ));
            }
        };
        into.push((key, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tables_and_dotted_keys_are_the_same() {
        let text = "port.maxRetries = 3\n[rpc]\naskTimeout = '2s'\n[rpc.io]\nmaxInFlight = 7\n";
        let config = RpcEnvConfig::client("c").set_toml(text).unwrap();
        assert_eq!(config.ask_timeout().duration(), Duration::from_secs(2));
        assert_eq!(config.limits().max_in_flight(), 7);
        assert_eq!(config.max_port_retries(), 3);
    }

    #[test]
    fn a_misspelt_key_suggests_the_right_one() {
        let error = RpcEnvConfig::client("c").set_toml("rpc.askTimeuot = '2s'").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.text().contains("rpc.askTimeout"), "{error}");
        let vars = [("A_RPC_ASK_TIMEUOT".to_owned(), "2s".to_owned())];
        let error = RpcEnvConfig::client("c").set_env_vars("A_", vars).unwrap_err();
        assert!(error.text().starts_with("variable A_RPC_ASK_TIMEUOT: "), "{error}");
        assert!(error.text().contains("rpc.askTimeout"), "{error}");
    }

    #[test]
    fn every_key_can_be_a_variable_and_others_are_left_alone() {
        let names: std::collections::BTreeSet<_> =
            RpcEnvConfig::known_keys().map(|key| variable(key.name)).collect();
        assert_eq!(names.len(), RpcEnvConfig::known_keys().count(), "two keys, one variable");
        let first = |key: &crate::ConfigKey| key.name.split('.').next();
        let looked_at = |key| first(key).is_some_and(|word| FIRST_WORDS.contains(&word));
        assert!(RpcEnvConfig::known_keys().all(looked_at), "a key whose variable nobody looks at");
        let own = ("A_LOG", "debug");
        let vars = [("A_RPC_ASK_TIMEOUT", "3s"), ("PATH", "/bin"), ("RPC_ASK_TIMEOUT", "9s"), own];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = RpcEnvConfig::client("c").set_env_vars("A_", vars).unwrap();
        assert_eq!(config.ask_timeout().duration(), Duration::from_secs(3));
    }

    #[test]
    fn what_is_not_toml_or_not_a_value_is_named() {
        let error = RpcEnvConfig::client("c").set_toml("rpc = [").unwrap_err();
        assert!(error.text().starts_with("the configuration is not TOML"), "{error}");
        let error = RpcEnvConfig::client("c").set_toml("rpc.askTimeout = [1]").unwrap_err();
        assert_eq!(
            error.text(),
            "rpc.askTimeout is of type array, expected a text or a whole number"
        );
    }
}
