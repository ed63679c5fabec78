//! Where the credentials came from, for people. The secret stays inside.

use std::time::SystemTime;

use aws_credential_types::credential_feature::AwsCredentialFeature as Feature;
use aws_credential_types::provider::ProvideCredentials;

use super::client::{credentials_provider, endpoint_of};
use super::config::S3Config;
use super::transport;
use crate::store::{Result, StoreError};

/// Credentials that were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsOrigin {
    /// `the environment (AWS_ACCESS_KEY_ID)`.
    pub source: String,
    /// The first letters of the access key's id, which is no secret but need not be shown either.
    pub key_begins: String,
    pub expires: Option<SystemTime>,
    /// With a session token.
    pub temporary: bool,
}

/// Asks the same sources in the same order as a mount of `config`.
pub async fn credentials_origin(config: &S3Config) -> Result<CredentialsOrigin> {
    let (provider, given) = credentials_provider(config).await?;
    let found = provider.provide_credentials().await.map_err(|error| {
        let failure = transport::classify(&error, false, &endpoint_of(config));
        StoreError::new(failure.kind, "credentials", "", failure.message)
    })?;
    let features = found.get_property::<Vec<Feature>>().map(Vec::as_slice).unwrap_or_default();
    let profile = config.profile.clone();
    let variable = |name: &str| if name == "AWS_PROFILE" && profile.is_some() { profile.clone() } else { std::env::var(name).ok() };
    let source = given.unwrap_or_else(|| source_of(features, &variable));
    Ok(CredentialsOrigin {
        source,
        key_begins: found.access_key_id().chars().take(SHOWN).collect(),
        expires: found.expiry(),
        temporary: found.session_token().is_some(),
    })
}

/// Enough to tell two keys apart, too little to be one.
const SHOWN: usize = 4;

fn source_of(features: &[Feature], variable: &dyn Fn(&str) -> Option<String>) -> String {
    let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let named = |what: &str| format!("{what} of the profile {profile:?}");
    let source = features.iter().rev().find_map(|feature| {
        Some(match feature {
            Feature::CredentialsEnvVars => "the environment (AWS_ACCESS_KEY_ID)".to_owned(),
            Feature::CredentialsEnvVarsStsWebIdToken | Feature::CredentialsStsAssumeRoleWebId => {
                "a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)".to_owned()
            }
            Feature::CredentialsProfile => format!("the files in ~/.aws, profile {profile:?}"),
            Feature::CredentialsProfileProcess | Feature::CredentialsProcess => named("the credential_process"),
            Feature::CredentialsProfileSso | Feature::CredentialsSso => named("the single sign-on"),
            Feature::CredentialsStsAssumeRole | Feature::CredentialsProfileSourceProfile => named("the role"),
            Feature::CredentialsHttp => "the container (AWS_CONTAINER_CREDENTIALS_…_URI)".to_owned(),
            Feature::CredentialsImds => "the instance's metadata service".to_owned(),
            _ => return None,
        })
    });
    source.unwrap_or_else(|| "the AWS chain".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names() {
        let none = |_: &str| None;
        for (feature, word) in [
            (Feature::CredentialsEnvVars, "AWS_ACCESS_KEY_ID"),
            (Feature::CredentialsProfile, "~/.aws"),
            (Feature::CredentialsHttp, "container"),
            (Feature::CredentialsImds, "metadata"),
        ] {
            assert!(source_of(&[feature], &none).contains(word), "{word}");
        }
        assert!(source_of(&[Feature::CredentialsProfile], &|_| Some("work".into())).contains("\"work\""));
        assert_eq!(source_of(&[], &none), "the AWS chain");
    }
}
