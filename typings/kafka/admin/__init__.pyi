from kafka.admin._configs import ConfigResource as ConfigResource
from kafka.admin._configs import ConfigResourceType as ConfigResourceType
from kafka.admin._groups import MemberToRemove as MemberToRemove
from kafka.admin._partitions import OffsetSpec as OffsetSpec
from kafka.admin._topics import NewTopic as NewTopic
from kafka.admin.client import KafkaAdminClient as KafkaAdminClient
