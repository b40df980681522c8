"""A CloudFormation template, read with its short tags, and what can be checked without AWS."""
import re

import yaml

# What GetAtt knows of the types that we use (CloudFormation's resource reference).
ATTRIBUTES = {
    "AWS::DynamoDB::Table": {"Arn"}, "AWS::SQS::Queue": {"Arn", "QueueName"},
    "AWS::IAM::Role": {"Arn"}, "AWS::Lambda::Function": {"Arn"}, "AWS::Logs::LogGroup": {"Arn"},
    "AWS::ApiGatewayV2::Api": {"ApiEndpoint"}, "AWS::IoT::RoleAlias": {"RoleAliasArn"},
    "AWS::IoT::TopicRule": {"Arn"}, "AWS::Kinesis::Stream": {"Arn"},
}
PSEUDO = {"AWS::AccountId", "AWS::NoValue", "AWS::Partition", "AWS::Region", "AWS::StackName"}
SECTIONS = {"AWSTemplateFormatVersion", "Description", "Parameters", "Conditions", "Resources",
            "Outputs"}


class Loader(yaml.SafeLoader):
    """With the short forms (!Ref X) as their long ones ({"Ref": "X"})."""


def construct_tag(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else "Fn::" + suffix: value}


def construct_mapping(loader, node, deep=False):
    names = [key.value for key, _ in node.value]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {twice} stands there twice")
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


Loader.add_multi_constructor("!", construct_tag)
Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
                       lambda loader, node: construct_mapping(loader, node, True))


def names_of_sub(text):
    """What ${...} of a Fn::Sub means; ${!X} means nothing."""
    return [name for name in re.findall(r"\$\{([^}]*)\}", text) if not name.startswith("!")]


class Template:
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.text = file.read()
        self.whole = yaml.load(self.text, Loader)
        self.parameters = self.whole.get("Parameters", {})
        self.conditions = self.whole.get("Conditions", {})
        self.resources = self.whole["Resources"]
        self.outputs = self.whole.get("Outputs", {})

    def of_type(self, kind):
        return {name: one["Properties"] for name, one in self.resources.items()
                if one["Type"] == kind}

    # -- checks --

    def problems(self):
        """Everything that would not resolve, in words."""
        found = [f"unknown section {name}" for name in set(self.whole) - SECTIONS]
        used, depends = set(), {}
        for section in ("Conditions", "Resources", "Outputs"):
            for name, one in self.whole.get(section, {}).items():
                given = {one["Condition"]} if section != "Conditions" and "Condition" in one \
                    else set()
                for kind, target, attribute, under in references(one, frozenset(given)):
                    used.add(target)
                    found += self.look(f"{section}.{name}", kind, target, attribute, under)
                    if section == "Resources" and target in self.resources:
                        depends.setdefault(name, set()).add(target)
        for name in set(self.parameters) | set(self.conditions):
            if name not in used:
                found.append(f"{name} is used by nobody")
        return found + self.cycles(depends)

    def look(self, where, kind, target, attribute, under):
        if kind == "condition":
            return [] if target in self.conditions else [f"{where}: no condition {target}"]
        if target in PSEUDO or (target in self.parameters and attribute is None):
            return []
        if target not in self.resources:
            return [f"{where}: nothing is called {target}"]
        resource = self.resources[target]
        if attribute is not None and attribute not in ATTRIBUTES.get(resource["Type"], set()):
            return [f"{where}: {resource['Type']} has no attribute {attribute}"]
        needed = resource.get("Condition")
        if needed is not None and not any(self.implies(one, needed) for one in under):
            return [f"{where}: {target} is only there with {needed}"]
        return []

    def implies(self, condition, other):
        """Whether a condition can only be true when the other is: the same, or an And of it."""
        if condition == other:
            return True
        parts = self.conditions.get(condition, {}).get("Fn::And", [])
        return any(self.implies(part["Condition"], other) for part in parts if "Condition" in part)

    @staticmethod
    def cycles(depends):
        done, found = set(), []

        def visit(name, above):
            if name in above:
                found.append("a circle: " + " -> ".join(above + [name]))
            elif name not in done:
                for other in sorted(depends.get(name, ())):
                    visit(other, above + [name])
                done.add(name)

        for name in sorted(depends):
            visit(name, [])
        return found

    # -- values --

    def resolve(self, text, given):
        """A Fn::Sub with values for its names; a resource's own name stands for what is missing."""
        return re.sub(r"\$\{([^}]*)\}", lambda found: given.get(
            found.group(1), found.group(1).split(".")[0].lower()), text)


def references(node, under):
    """(kind, target, attribute, conditions) of everything below a node that names another."""
    if isinstance(node, list):
        for one in node:
            yield from references(one, under)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield "ref", value, None, under
            elif key == "Fn::GetAtt":
                yield "ref", value[0], value[1], under
            elif key == "Fn::Sub":
                for name in names_of_sub(value):
                    target, _, attribute = name.partition(".")
                    yield "ref", target, attribute or None, under
            elif key == "Condition" and isinstance(value, str):
                yield "condition", value, None, under
            elif key == "DependsOn":
                yield "ref", value, None, under
            elif key == "Fn::If":
                yield "condition", value[0], None, under
                yield from references(value[1], under | {value[0]})
                yield from references(value[2], under)
            else:
                yield from references(value, under)
