data "aws_availability_zones" "here" {
  state = "available"
}

data "aws_ami" "debian" {
  most_recent = true
  owners      = ["136693071363"] # Debian

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
}

# -- network -------------------------------------------------------------------------------------

resource "aws_vpc" "node" {
  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
}

resource "aws_subnet" "node" {
  vpc_id            = aws_vpc.node.id
  cidr_block        = var.vpc_cidr
  availability_zone = data.aws_availability_zones.here.names[0]
}

resource "aws_internet_gateway" "node" {
  vpc_id = aws_vpc.node.id
}

resource "aws_route_table" "node" {
  vpc_id = aws_vpc.node.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.node.id
  }
}

resource "aws_route_table_association" "node" {
  subnet_id      = aws_subnet.node.id
  route_table_id = aws_route_table.node.id
}

resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.node.id
}

resource "aws_security_group" "node" {
  name_prefix = "neuroseg-"
  description = "DICOM and page from the site alone; no SSH: Session Manager opens a shell."
  vpc_id      = aws_vpc.node.id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "dicom" {
  for_each          = toset(var.site_cidrs)
  security_group_id = aws_security_group.node.id
  description       = "DICOM over TLS"
  cidr_ipv4         = each.value
  from_port         = 2762
  to_port           = 2762
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "page" {
  for_each          = toset(var.site_cidrs)
  security_group_id = aws_security_group.node.id
  description       = "Page, API and STOW-RS over TLS"
  cidr_ipv4         = each.value
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "out" {
  security_group_id = aws_security_group.node.id
  description       = "Results, packages and the image"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

# -- what the machine may do ---------------------------------------------------------------------

resource "aws_iam_role" "node" {
  name_prefix = "neuroseg-"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "shell" {
  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_role_policy" "tokens" {
  name = "tokens"
  role = aws_iam_role.node.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "secretsmanager:GetSecretValue"
      Resource = var.tokens_secret
    }]
  })
}

resource "aws_iam_instance_profile" "node" {
  name_prefix = "neuroseg-"
  role        = aws_iam_role.node.name
}

# -- the machine ---------------------------------------------------------------------------------

resource "aws_instance" "node" {
  ami                         = data.aws_ami.debian.id
  instance_type               = var.instance_type
  subnet_id                   = aws_subnet.node.id
  vpc_security_group_ids      = [aws_security_group.node.id]
  iam_instance_profile        = aws_iam_instance_profile.node.name
  associate_public_ip_address = true
  user_data_replace_on_change = true

  user_data = templatefile("${path.module}/user-data.sh.tftpl", {
    config        = var.config
    image         = var.image
    region        = var.region
    tokens_secret = var.tokens_secret
    volume_id     = aws_ebs_volume.spool.id
  })

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # no container reaches the machine's credentials
  }

  root_block_device {
    encrypted   = true
    volume_size = 20
    volume_type = "gp3"
  }

  lifecycle {
    ignore_changes = [ami] # a newer Debian is a decision
  }
}

# It outlives the machine: a new one goes on with the studies that the old one had.
resource "aws_ebs_volume" "spool" {
  availability_zone = aws_subnet.node.availability_zone
  encrypted         = true
  size              = var.spool_gb
  type              = "gp3"

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_volume_attachment" "spool" {
  device_name = "/dev/sdf"
  instance_id = aws_instance.node.id
  volume_id   = aws_ebs_volume.spool.id
}
