//! The least that a mount must be allowed: an IAM policy, or the token to make on R2. Pure.

use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq)]
pub enum Grant {
    /// An IAM policy; MinIO and others take the same.
    Policy(Value),
    /// What to choose when a token is made, in words.
    Token(String),
}

impl Grant {
    /// For what lies below `prefix` (empty, or ending in a slash).
    pub fn new(bucket: &str, prefix: &str, region: &str, r2: bool, read_only: bool) -> Self {
        if r2 {
            let scope = if read_only { "Object Read only" } else { "Object Read & Write" };
            let note = if prefix.is_empty() {
                ""
            } else {
                " (a token can't be limited to a prefix: what must be kept apart gets a bucket of its own)"
            };
            return Self::Token(format!("permission \"{scope}\", applied to the bucket {bucket:?} only{note}"));
        }
        let bucket_name = format!("arn:{}:s3:::{bucket}", partition(region));
        let objects = format!("{bucket_name}/{}*", literal(prefix));
        let mut list = json!({ "Sid": "MediafsList", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket_name });
        if !prefix.is_empty() {
            list["Condition"] = json!({ "StringLike": { "s3:prefix": format!("{}*", literal(prefix)) } });
        }
        let mut statements = vec![list];
        let mut actions = vec!["s3:GetObject"];
        if !read_only {
            actions.extend(["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]);
            statements.push(json!({
                "Sid": "MediafsUploads", "Effect": "Allow", "Action": "s3:ListBucketMultipartUploads", "Resource": bucket_name
            }));
        }
        statements.push(json!({ "Sid": "MediafsObjects", "Effect": "Allow", "Action": actions, "Resource": objects }));
        Self::Policy(json!({ "Version": "2012-10-17", "Statement": statements }))
    }

    pub fn shown(&self) -> String {
        match self {
            // A Value always has a text.
            Self::Policy(policy) => format!("the least that the key must be allowed, as an IAM policy:\n{policy:#}"),
            Self::Token(words) => format!("the least that the key must be allowed: an R2 API token with the {words}"),
        }
    }

    pub fn json(&self) -> Value {
        match self {
            Self::Policy(policy) => json!({ "iam_policy": policy }),
            Self::Token(words) => json!({ "r2_token": words }),
        }
    }
}

/// In policies, `*`, `?` and `$` of a name have to be told from patterns.
fn literal(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '*' | '?' | '$') { format!("${{{c}}}") } else { c.to_string() }).collect()
}

fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_allows_the_prefix_and_no_more() {
        let Grant::Policy(policy) = Grant::new("b", "a*/", "cn-north-1", false, false) else { panic!("a policy") };
        let statements = &policy["Statement"];
        assert_eq!(statements[0]["Condition"]["StringLike"]["s3:prefix"], "a${*}/*");
        assert_eq!(statements[1]["Resource"], "arn:aws-cn:s3:::b");
        assert_eq!(statements[2]["Resource"], "arn:aws-cn:s3:::b/a${*}/*");
        assert_eq!(statements[2]["Action"], json!(["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]));
        let Grant::Policy(policy) = Grant::new("b", "", "us-east-1", false, true) else { panic!("a policy") };
        assert_eq!(policy["Statement"][0].get("Condition"), None);
        assert_eq!(policy["Statement"][1]["Action"], json!(["s3:GetObject"]));
        assert!(Grant::new("b", "", "", false, false).shown().contains("\"s3:ListBucket\""));
    }

    #[test]
    fn r2_has_tokens() {
        let words = Grant::new("b", "p/", "auto", true, false).shown();
        assert!(words.contains("Object Read & Write") && words.contains("\"b\"") && words.contains("prefix"), "{words}");
        assert!(Grant::new("b", "", "auto", true, true).json()["r2_token"].as_str().is_some_and(|words| words.contains("Read only")));
    }
}
